"""A logger that may fail: the run prints one message and continues without the logger."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers.logger import DummyExperiment, Logger
from rich.console import Console

from kd_lightning.base.errors import UserError
from kd_lightning.base.interrupts import delay_interrupts

# logger -> the optional package that it needs; the extra of the logger's name installs it
REQUIRED_PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow"}


class SafeLogger(Logger):
    """Forwards every call to a logger. After the logger's first failure it does nothing.

    Lightning calls ``finalize`` after the fit, but the test results are logged later. So
    ``finalize`` only saves, and ``close`` finalizes the logger.

    Args:
        key: of the logger in the configuration.
        make: returns the logger; None on a rank that logs nothing.

    Raises:
        UserError: the logger cannot be made with these settings, or a package is missing.
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
            raise UserError(f"logger={key} needs a package that is missing: {error}") from error
        except Exception as error:
            self._leave_out(error)

    def _attempt(self, action: Callable[[Any], Any], otherwise: Any = None) -> Any:
        """The result of ``action(logger)``; ``otherwise`` if the logger fails or has failed."""
        if self._is_in_use:
            try:
                with delay_interrupts():
                    return action(self._logger)
            except Exception as error:  # any error of a disk, a network or a library
                self._leave_out(error)
        return otherwise

    def _leave_out(self, error: Exception) -> None:
        self._is_in_use = False
        reason = " ".join(str(error).split()) or type(error).__name__
        Console(stderr=True).print(
            f"logger={self.key} has failed and is left out, the run continues: {reason}",
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

    def log_files(self, files: list[Path]) -> None:
        """Stores copies of a run's files, if the logger can do that."""
        self._attempt(lambda logger: getattr(logger, "log_files", lambda _: None)(files))

    def close(self, status: str) -> None:
        """Finalizes the logger, even one that has failed: the next run must not find it open."""
        if self._logger is not None and not self._is_in_use:
            with suppress(Exception):
                self._logger.finalize(status)
        self._attempt(lambda logger: logger.finalize(status))


@contextmanager
def closing_loggers(loggers: Iterable[SafeLogger], *stops: type[Exception]) -> Iterator[None]:
    """Closes the loggers at the end of a run, with status "success", "failed" or "killed".

    Args:
        stops: exceptions that end a run early without being errors. Their status is "killed".
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
            logger.close(status)


def check_loggers(loggers: Mapping[str, Any]) -> None:
    """Raises ``UserError`` for a logger whose package is not installed, or whose address of a
    server has a password: it would be in the files of the run, and in what the server shows.
    """
    for key, settings in loggers.items():
        address = urlsplit(str((settings or {}).get("tracking_uri")))
        if address.scheme in ("http", "https") and address.password:
            raise UserError(
                f"logger.{key}.tracking_uri has a password, which the files of the run would show: "
                "give it in the environment, as MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD"
            )
        package = REQUIRED_PACKAGES.get(key)
        if package is not None and find_spec(package) is None:
            raise UserError(f"logger={key} needs {package}: pip install 'kd_lightning[{key}]'")
