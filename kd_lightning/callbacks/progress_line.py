"""The state of a training run, and its text on lines of a given width."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.cells import cell_len
from rich.text import Text
from torch import Tensor

LONGEST_BAR = 40  # cells
# Layouts of the first line, the widest first; the first that fits is used. Each says: number of
# facts, least cells of the title (0: the whole title), least cells of the bar (0: no bar).
HEAD_LAYOUTS = ((3, 0, 10), (2, 0, 10), (2, 12, 10), (2, 12, 0), (1, 1, 0))
MARGIN = "  "


@dataclass(frozen=True)
class StudentState:
    """Metrics of a student in the last finished epoch.

    Attributes:
        accuracy: on val; None without a val part.
        losses: loss term -> its weighted mean. The terms add up to the loss.
    """

    key: str
    accuracy: float | None
    losses: Mapping[str, float]

    def texts(self) -> list[str]:
        """The metrics in words, from the longest text to the shortest; each leaves out the least
        important fact of the one before.
        """
        terms = [f"{name} {loss:.3f}" for name, loss in self.losses.items()]
        total = f"loss {sum(self.losses.values()):.3f}"
        equation = f"{total} = {' + '.join(terms)}" if len(terms) > 1 else "".join(terms)
        long, short = "", ""
        if self.accuracy is not None:
            long, short = f"val accuracy {self.accuracy:.2%}", f"val {self.accuracy:.2%}"
        pairs = [(long, equation), (short, equation), (short, ", ".join(terms)), (short, total)]
        if not terms:
            pairs = [(long, ""), (short, "")]
        return [", ".join(filter(None, pair)) for pair in [*pairs, (short or total, "")]]


@dataclass(frozen=True)
class ProgressLine:
    """The state of a run at one moment.

    Attributes:
        title: of the run.
        epochs: of the whole run.
        first: the epoch that this process began with.
        done: number of finished epochs plus the finished share of the current one.
        elapsed: seconds since this process began training.
        finished: training has ended.
    """

    title: str
    epochs: int
    first: float = 0
    done: float = 0
    elapsed: float = 0.0
    students: tuple[StudentState, ...] = ()
    finished: bool = False

    @property
    def tenth(self) -> int:
        """How many tenths of the run are done."""
        return int(self.done * 10 / max(1, self.epochs) + 1e-9)

    def times(self) -> list[str]:
        """The time left and the time per epoch; in the end the time taken. Empty if unknown."""
        if self.finished or self.done >= self.epochs:
            return [f"took {clock(self.elapsed)}"]
        if self.done <= self.first:
            return []
        each = self.elapsed / (self.done - self.first)
        return [f"{clock(each * (self.epochs - self.done))} left", f"{duration(each)}/epoch"]

    def text(self) -> str:
        """The whole state on one line, for a log file."""
        done = math.floor(self.done * 10) / 10  # rounded down: 0.97 of an epoch is not 1
        run = ", ".join([f"epoch {done:g}/{self.epochs}", *self.times()])
        students = [f"{student.key}: {student.texts()[0]}" for student in self.students]
        return f"{self.title}: {'; '.join([run, *students])}"

    def lines(self, width: int, bar: str = "━") -> list[Text]:
        """A line with a bar and a line for each student, none wider than ``width`` cells."""
        keys = max((cell_len(student.key) for student in self.students), default=0)
        below = []
        for student in self.students:
            start = f"{MARGIN}{student.key}{' ' * (keys - cell_len(student.key))}{MARGIN}"
            words = first_that_fits(student.texts(), width - cell_len(start))
            below.append(truncated(Text.assemble((start, "bold"), words), width))
        return [self._head(width, bar), *below]

    def _head(self, width: int, bar: str) -> Text:
        title = Text(self.title, "bold")
        facts = [f"{int(self.done)}/{self.epochs} epochs", *self.times()]
        for count, least_title, least_bar in HEAD_LAYOUTS:
            words = ", ".join(facts[:count])
            free = width - cell_len(words) - 1 - (least_bar + 1 if least_bar else 0)
            if free >= min(title.cell_len, least_title or title.cell_len):
                break
        title = truncated(title, free)
        cells = min(LONGEST_BAR, width - title.cell_len - cell_len(words) - 2) if least_bar else 0
        full = int(cells * min(1.0, self.done / max(1, self.epochs)))
        drawn = [(bar * full, "bar.complete"), (bar * (cells - full), "bar.back"), " "]
        return truncated(Text.assemble(title, " ", *(drawn if cells else []), words), width)


def read_students(metrics: Mapping[str, Tensor], keys: Sequence[str]) -> tuple[StudentState, ...]:
    """The states of students, from a Trainer's ``callback_metrics``.

    All values are fetched from the device in one transfer.
    """
    names = [f"val/{key}/accuracy" for key in keys]
    names += [name for key in keys for name in metrics if name.startswith(f"train/{key}/")]
    names = [name for name in names if name in metrics]
    values = torch.stack([metrics[name].float() for name in names]).tolist() if names else []
    fetched = dict(zip(names, values, strict=True))
    return tuple(
        StudentState(
            key,
            fetched.get(f"val/{key}/accuracy"),
            {
                name.removeprefix(f"train/{key}/"): value
                for name, value in fetched.items()
                if name.startswith(f"train/{key}/")
            },
        )
        for key in keys
    )


def first_that_fits(texts: Sequence[str], width: int) -> str:
    """The first of ``texts`` that is at most ``width`` cells wide; else the last one."""
    return next((text for text in texts if cell_len(text) <= width), texts[-1])


def truncated(text: Text, width: int) -> Text:
    text.truncate(max(1, width), overflow="ellipsis")
    return text


def clock(seconds: float) -> str:
    """Such as 0:08, 12:34 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def duration(seconds: float) -> str:
    """Such as 0.04 s, 3.1 s or 2:05."""
    if seconds >= 60:
        return clock(seconds)
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
