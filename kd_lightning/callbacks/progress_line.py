"""What is known of a run while it trains, and how it reads on a line of a given width."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.cells import cell_len
from rich.text import Text
from torch import Tensor

LONGEST_BAR = 40  # cells
# How many facts stand beside at least so many cells of the title and of the bar; the first that
# fits is taken. 0 of the title: all of it; 0 of the bar: none.
HEADS = ((3, 0, 10), (2, 0, 10), (2, 12, 10), (2, 12, 0), (1, 1, 0))
MARGIN = "  "


@dataclass(frozen=True)
class Student:
    """What the last finished epoch said of a student.

    Attributes:
        accuracy: on val; None without a val part.
        losses: part -> its mean, weight included, so that the parts add up to the loss.
    """

    key: str
    accuracy: float | None
    losses: Mapping[str, float]

    def wordings(self) -> list[str]:
        """From the longest to the shortest: each leaves out what matters least of the last one."""
        parts = [f"{name} {loss:.3f}" for name, loss in self.losses.items()]
        whole = f"loss {sum(self.losses.values()):.3f}"
        summed = f"{whole} = {' + '.join(parts)}" if len(parts) > 1 else "".join(parts)
        long, short = "", ""
        if self.accuracy is not None:
            long, short = f"val accuracy {self.accuracy:.2%}", f"val {self.accuracy:.2%}"
        said = [(long, summed), (short, summed), (short, ", ".join(parts)), (short, whole)]
        if not parts:
            said = [(long, ""), (short, "")]
        return [", ".join(filter(None, words)) for words in [*said, (short or whole, "")]]


@dataclass(frozen=True)
class ProgressLine:
    """A run at one moment.

    Attributes:
        title: what is being trained.
        epochs: of the whole run.
        first: the epoch this process began with.
        done: epochs that are finished, and the share of the one that runs.
        elapsed: seconds since this process began with them.
        over: nothing more will come.
    """

    title: str
    epochs: int
    first: float = 0
    done: float = 0
    elapsed: float = 0.0
    students: tuple[Student, ...] = ()
    over: bool = False

    @property
    def tenth(self) -> int:
        """How many tenths of the run are done."""
        return int(self.done * 10 / max(1, self.epochs) + 1e-9)

    def times(self) -> list[str]:
        """How long it will take yet, and how long an epoch takes, as far as that is known."""
        if self.over or self.done >= self.epochs:
            return [f"took {clock(self.elapsed)}"]
        if self.done <= self.first:
            return []
        each = self.elapsed / (self.done - self.first)
        return [f"{clock(each * (self.epochs - self.done))} left", f"{brief(each)}/epoch"]

    def line(self) -> str:
        """All there is to say, for a log file."""
        done = math.floor(self.done * 10) / 10  # 0.97 of an epoch are not 1
        run = ", ".join([f"epoch {done:g}/{self.epochs}", *self.times()])
        students = [f"{student.key}: {student.wordings()[0]}" for student in self.students]
        return f"{self.title}: {'; '.join([run, *students])}"

    def lines(self, width: int, bar: str = "━") -> list[Text]:
        """A line with a bar, and a line for each student, none of them wider than ``width``."""
        keys = max((cell_len(student.key) for student in self.students), default=0)
        below = []
        for student in self.students:
            start = f"{MARGIN}{student.key}{' ' * (keys - cell_len(student.key))}{MARGIN}"
            words = fitting(student.wordings(), width - cell_len(start))
            below.append(cut(Text.assemble((start, "bold"), words), width))
        return [self._head(width, bar), *below]

    def _head(self, width: int, bar: str) -> Text:
        title = Text(self.title, "bold")
        facts = [f"{int(self.done)}/{self.epochs} epochs", *self.times()]
        for count, least_title, least_bar in HEADS:
            words = ", ".join(facts[:count])
            room = width - cell_len(words) - 1 - (least_bar + 1 if least_bar else 0)
            if room >= min(title.cell_len, least_title or title.cell_len):
                break
        title = cut(title, room)
        cells = min(LONGEST_BAR, width - title.cell_len - cell_len(words) - 2) if least_bar else 0
        full = int(cells * min(1.0, self.done / max(1, self.epochs)))
        drawn = [(bar * full, "bar.complete"), (bar * (cells - full), "bar.back"), " "]
        return cut(Text.assemble(title, " ", *(drawn if cells else []), words), width)


def read_students(metrics: Mapping[str, Tensor], keys: Sequence[str]) -> tuple[Student, ...]:
    """The students' part of a Trainer's ``callback_metrics``, fetched from the device at once."""
    names = [f"val/{key}/accuracy" for key in keys]
    names += [name for key in keys for name in metrics if name.startswith(f"train/{key}/")]
    names = [name for name in names if name in metrics]
    values = torch.stack([metrics[name].float() for name in names]).tolist() if names else []
    known = dict(zip(names, values, strict=True))
    return tuple(
        Student(
            key,
            known.get(f"val/{key}/accuracy"),
            {
                name.removeprefix(f"train/{key}/"): value
                for name, value in known.items()
                if name.startswith(f"train/{key}/")
            },
        )
        for key in keys
    )


def fitting(wordings: Sequence[str], width: int) -> str:
    """The first of ``wordings`` that is no wider than ``width``; else the last one."""
    return next((words for words in wordings if cell_len(words) <= width), wordings[-1])


def cut(text: Text, width: int) -> Text:
    text.truncate(max(1, width), overflow="ellipsis")
    return text


def clock(seconds: float) -> str:
    """0:08, 12:34, 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def brief(seconds: float) -> str:
    """0.04 s, 3.1 s, 2:05."""
    if seconds >= 60:
        return clock(seconds)
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
