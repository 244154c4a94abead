"""``kd_lightning.load``: a student, ready to use, from its file or from its run.

student = kd_lightning.load("outputs/<run>")
probabilities = student(images).softmax(1)
"""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.records.run_directory import is_run
from kd_lightning.students.architecture import build
from kd_lightning.students.file import WEIGHTS_FILE, read_student
from kd_lightning.students.of_run import file_of, read_older_run, student_of


class Student(nn.Module):
    """A trained student in eval mode. Its weights do not require a gradient.

    Args:
        net: raw input -> ``ModelOutput``.
        info: the description in its file (``student.json``).

    Attributes:
        class_names: one for each of the C logits, in their order.
    """

    def __init__(self, net: nn.Module, info: dict[str, Any]) -> None:
        super().__init__()
        self.net = net
        self.info = info
        self.class_names = list(info["class_names"])
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """The logits, (B, C).

        Args:
            x: images (B, C, H, W), uint8 or in [0, 1], or series (B, C, L) in the units of the
                data. The net itself normalizes them.
        """
        return self.net(x).logits

    def features(self, x: Tensor) -> Tensor:
        """The input of the last layer, (B, D)."""
        # no torch.jit.export: torch.jit.trace cannot check a module with a second scripted method
        return self.net(x).features

    def transform(self) -> Callable[[Tensor], Tensor]:
        """The transform of one sample before it is put into a batch.

        Of an image: uint8 (C, H, W) of any size -> uint8 (C, S, S), as val and test saw it. Of a
        series: nothing changes. It can be pickled, for use in other processes.
        """
        # here, because it imports the data sets, which takes seconds
        from kd_lightning.students.transform import transform_of

        return transform_of(self.info["input"])


def load(path: str | PathLike, *, student: str | None = None, allow: Sequence[str] = ()) -> Student:
    """The student in a file, a folder or a run directory, in float32 on the CPU.

    Args:
        path: a student file (``.safetensors``); a folder with one; or a run directory.
        student: of a run directory with several students, the name of one. None: the one that was
            best on val.
        allow: packages whose functions the file may call to build the net, as in
            ``["my_networks"]``. The nets of this package and of timm are always allowed. Give only
            packages that you trust.

    Raises:
        UserError: there is no such file, it is damaged, or its net cannot be built.
    """
    path = Path(path).expanduser()
    if path.is_dir() and is_run(path):
        key = student_of(path, student)
        if not file_of(path, key).is_file():
            info, state = read_older_run(path, key, allow)
            return Student(build(info, state, path, allow), info)
        path = file_of(path, key)
    elif student is not None:
        raise UserError(f"--student {student} is for a run directory, {path} is none")
    if any(path.glob("jobs/*/job.json")):
        raise UserError(
            f"{path} is a sweep, and one run is needed: name the directory of a job, such as "
            f"{path / 'jobs' / '0000'}"
        )
    path = find_file(path)
    info, state = read_student(path)
    return Student(build(info, state, path, allow), info)


def find_file(path: Path) -> Path:
    """The student file at ``path`` or in this folder."""
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        named = [file for file in files if file.name == WEIGHTS_FILE] or files
        if len(named) != 1:
            found = ", ".join(file.name for file in named[:5]) or "none"
            raise UserError(
                f"expected one student file (.safetensors) in {path}, or a run directory; found "
                f"{found}"
            )
        return named[0]
    if path.suffix != ".safetensors" or not path.is_file():
        reason = "which does not exist" if not path.exists() else "which is another kind of file"
        raise UserError(
            "expected a student file (.safetensors), a folder with one or a run directory, got "
            f"{path}, {reason}"
        )
    return path
