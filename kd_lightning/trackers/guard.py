"""A logger that may fail: the run is told so once, and goes on without it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import DummyExperiment, Logger
from rich.console import Console

from kd_lightning.base.errors import UserError
from kd_lightning.base.interrupts import in_one_piece

# logger -> the package that it needs beside ours, which the extra of that name installs
NEEDS = {"tensorboard": "tensorboard", "mlflow": "mlflow"}


class Guard(Logger):
    """Hands all that Lightning says to a logger, until that fails; from then on it is left out.

    Lightning's last word comes after the fit, when the test is still to be logged: the logger is
    ended by ``end``, and not before.

    Args:
        key: of the logger in the configuration.
        make: makes it; None on a rank that logs nothing.

    Raises:
        UserError: it is asked for something that cannot be done.
    """

    def __init__(self, key: str, make: Callable[[], Logger] | None) -> None:
        super().__init__()
        self.key = key
        self._logger: Logger | None = None
        self._is_in_use = make is not None
        if make is None:
            return
        try:
            self._logger = make()
        except UserError:
            raise
        except ImportError as error:
            raise UserError(f"logger={key} needs what is not installed: {error}") from error
        except Exception as error:
            self._leave_out(error)

    def _attempt(self, action: Callable[[Any], Any], otherwise: Any = None) -> Any:
        """What ``action`` returns, given the logger; ``otherwise``, if it fails or has failed."""
        if self._is_in_use:
            try:
                with in_one_piece():
                    return action(self._logger)
            except Exception as error:  # whatever a disk, a network or a library comes up with
                self._leave_out(error)
        return otherwise

    def _leave_out(self, error: Exception) -> None:
        self._is_in_use = False
        reason = " ".join(str(error).split()) or type(error).__name__
        Console(stderr=True).print(
            f"logger={self.key} has failed and is left out, the run goes on: {reason}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )

    @property
    def experiment(self) -> Any:
        nothing = DummyExperiment()
        return self._attempt(lambda logger: getattr(logger, "experiment", nothing), nothing)

    @property
    def name(self) -> str | None:
        return self._attempt(lambda logger: logger.name)

    @property
    def version(self) -> int | str | None:
        return self._attempt(lambda logger: logger.version)

    @property
    def save_dir(self) -> str | None:
        return self._attempt(lambda logger: logger.save_dir)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._attempt(lambda logger: logger.log_metrics(metrics, step))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        self._attempt(lambda logger: logger.log_hyperparams(*args, **kwargs))

    def log_graph(self, *args: Any, **kwargs: Any) -> None:
        self._attempt(lambda logger: logger.log_graph(*args, **kwargs))

    def save(self) -> None:
        self._attempt(lambda logger: logger.save())

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self._attempt(lambda logger: logger.after_save_checkpoint(checkpoint_callback))

    def finalize(self, status: str) -> None:
        self.save()

    def keep(self, files: list[Path]) -> None:
        """Keeps copies of a run's files, if this logger is one that can."""
        self._attempt(lambda logger: getattr(logger, "keep", lambda _: None)(files))

    def end(self, status: str) -> None:
        """Ends the logger; one that has failed too, or the next run would find it still open."""
        if self._logger is not None and not self._is_in_use:
            with suppress(Exception):
                self._logger.finalize(status)
        self._attempt(lambda logger: logger.finalize(status))


@contextmanager
def ended(loggers: Iterable[Guard], *stops: type[Exception]) -> Iterator[None]:
    """Ends the loggers of a run with what became of it: "success", "failed" or "killed".

    Args:
        stops: what ends a run early and is no error.
    """
    status = "success"
    try:
        yield
    except BaseException as error:
        is_error = isinstance(error, Exception) and not isinstance(error, stops)
        status = "failed" if is_error else "killed"
        raise
    finally:
        for logger in loggers:
            logger.end(status)


def check_installed(loggers: Iterable[str]) -> None:
    """Raises ``UserError`` for a logger whose package is not there."""
    for key in loggers:
        if key in NEEDS and find_spec(NEEDS[key]) is None:
            raise UserError(f"logger={key} needs {NEEDS[key]}: pip install 'kd_lightning[{key}]'")
