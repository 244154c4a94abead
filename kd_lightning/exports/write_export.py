"""One export from beginning to end: a complete folder, or an error and no file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.files import write_json, write_text
from kd_lightning.base.tables import Table
from kd_lightning.data.classification import ClassificationData
from kd_lightning.evaluation.metrics import count_parameters
from kd_lightning.exports import card
from kd_lightning.exports.checked_files import CheckedFile, write_checked
from kd_lightning.exports.graph import PREPROCESSING, Graph, Logits, build_graph
from kd_lightning.exports.measure import Speed, bytes_of, speed_of
from kd_lightning.exports.output_folder import (
    CARD,
    RECORD,
    check_replaceable,
    hash_of,
    replace_folder,
)
from kd_lightning.exports.parity import CheckedSamples, accuracy, run_all
from kd_lightning.exports.samples import image_reader, noise, of_part, of_path
from kd_lightning.exports.source import copy_student, record_of
from kd_lightning.exports.table import StudentRow, table_of
from kd_lightning.models.classifier import Classifier
from kd_lightning.students.file import JSON_FILE, WEIGHTS_FILE
from kd_lightning.students.load import Student, load

CALIBRATION = 256  # samples, at most


@dataclass(frozen=True)
class Request:
    """What a person asks for; the options of ``kd_lightning.export``.

    Attributes:
        source: a run directory, or a student file, or a folder with one.
        out: the folder to write, an absolute path.
        formats: names in ``formats.FORMATS``.
        student: of a run with several, the name of one; None: the best on val.
        preprocessing: "inside" or "outside" of the graph.
        samples, calibration: where to read the samples for the check, and those for int8; None:
            from the data of the run.
        limit: most samples for the check.
        batch: size of the batch whose throughput is measured.
        allow: packages whose functions the student file, or the configuration of its run, may
            call.
    """

    source: Path
    out: Path
    formats: Sequence[str] = ("onnx",)
    student: str | None = None
    preprocessing: str = "inside"
    samples: Path | None = None
    calibration: Path | None = None
    limit: int = 1000
    batch: int = 64
    allow: Sequence[str] = field(default_factory=tuple)

    def check(self) -> None:
        """Raises ``UserError`` for a value that is no choice or out of range, an option without
        effect, or a folder that must not be replaced.
        """
        if self.preprocessing not in PREPROCESSING:
            raise unknown("place", self.preprocessing, PREPROCESSING, "--preprocessing")
        for name in ("limit", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be >= 1, got {getattr(self, name)}")
        if self.calibration is not None and "int8" not in self.formats:
            raise UserError("--calibration has no effect without --format int8: remove it")
        check_replaceable(self.out)


def write_export(
    request: Request,
    run: Path | None = None,
    data: ClassificationData | None = None,
    teacher: nn.Module | None = None,
) -> Table:
    """Writes the folder of an export and returns its table.

    Args:
        request: what to write, checked.
        run: the run of the student, for the record of its teacher; None: it is not here.
        data: the data of the run; None: they are not here.
        teacher: a net of its architecture, to be timed; None: there is none.

    Raises:
        UserError: the export is impossible, or a file differs from PyTorch. No file is left.
    """
    with replace_folder(request.out) as folder, torch.no_grad():
        copy_student(request.source, request.student, folder, request.allow)
        student = load(folder, allow=request.allow)
        dtype = image_type(data, student.info)
        graph = build_graph(student, shape_of(student.info), request.preprocessing, dtype=dtype)
        graph.about.update(facts_of(student.info))
        record = record_of(run, student.info)
        calibration = calibration_of(request, student, data)
        samples = samples_of(request, student, data)
        batch = first(samples.x, request.batch)
        # before other runtimes, whose threads would slow it down
        row = student_row(student, graph, samples, batch, folder)
        speed = None
        if teacher is not None and is_of_record(teacher, record):
            speed = speed_of_teacher(teacher, batch, request.preprocessing)
        files = write_checked(graph, request.formats, folder, samples, calibration, batch)
        rest = {"kind": graph.input_name, "batch": len(batch)}
        table = table_of(files, row, samples, record, speed, **rest)
        names = {file.format: file.files for file in files}
        text = card.model_card(student.info, record, graph, table, names)
        write_text(folder / CARD, text)
        write_record(folder, request, samples, files)
    return table


def is_of_record(teacher: nn.Module, record: Mapping[str, Any] | None) -> bool:
    """Whether a net has as many parameters as the run's teacher, which may come from another run,
    or be several.
    """
    nets = {} if record is None else record["nets"]
    return "teacher" in nets and nets["teacher"]["parameters"] == count_parameters(teacher)


def shape_of(info: dict[str, Any]) -> tuple[int, ...]:
    """The shape of one sample."""
    given = info["input"]
    return (given["channels"], *[given["size"]] * (1 if given["kind"] == "series" else 2))


def image_type(data: ClassificationData | None, info: Mapping[str, Any]) -> torch.dtype:
    """uint8, unless the images of the run are numbers with a point.

    Args:
        data: of the run; None: they are not here.
        info: the description of the student.
    """
    x = None if data is None else data.parts["test"].x
    if isinstance(x, Tensor):
        return x.dtype
    is_float = data is None and info["input"].get("dtype") == "float32"
    return torch.float32 if is_float else torch.uint8


def facts_of(info: dict[str, Any]) -> dict[str, str]:
    """Facts for the metadata of the files, as text."""
    versions = ", ".join(f"{name} {v}" for name, v in info.get("versions", {}).items() if v)
    return {
        "title": str(info.get("title", "student")),
        "class_names": json.dumps(info["class_names"]),
        "versions": versions,
    }


def samples_of(
    request: Request, student: Student, data: ClassificationData | None
) -> CheckedSamples:
    """The samples for the check: from the command line, the run's test part, or noise."""
    given = {path for path in (request.samples, request.calibration) if path is not None}
    both = data is None or None not in (request.samples, request.calibration)
    is_shared = "int8" in request.formats and both and len(given) == 1
    too = ", with which int8 was calibrated too" if is_shared else ""
    if request.samples is not None:
        samples = samples_at(request.samples, student, "--samples", request.limit)
        return replace(samples, about=samples.about + too)
    if data is not None:
        samples = of_part(data, "test", request.limit)
        samples = replace(samples, y=as_classes(samples.y, data.class_names, student))
        if data.fingerprint == student.info.get("data", {}).get("fingerprint"):
            return samples
        return replace(samples, about=f"{samples.about}, whose data have changed since")
    if request.calibration is not None:
        samples = samples_at(request.calibration, student, "--calibration", request.limit)
        return replace(samples, about=samples.about + too)
    shape = shape_of(student.info)
    if len(shape) == 3:
        return noise(shape, image_type(data, student.info))
    samples, given = noise(shape, torch.float32), student.info["input"]
    if given["mean"] is None:
        return samples
    # in the units of the series: noise of another size may saturate a net, whatever its graph is
    mean, std = (torch.tensor(given[name]).reshape(-1, 1) for name in ("mean", "std"))
    return replace(samples, x=samples.x * std + mean)


def as_classes(
    y: Int[Tensor, " N"], class_names: Sequence[str], student: Student
) -> Int[Tensor, " N"] | None:
    """Labels of the data as the student's classes, by name; None if it lacks some of them."""
    place = {name: index for index, name in enumerate(student.class_names)}
    if not set(class_names) <= set(place):
        return None
    return torch.tensor([place[name] for name in class_names])[y]


def calibration_of(
    request: Request, student: Student, data: ClassificationData | None
) -> Tensor | None:
    """The samples for int8: from the command line, or of the run's val or train part."""
    if "int8" not in request.formats:
        return None
    path, option = request.calibration, "--calibration"
    if path is None and data is not None:
        part = "train" if data.parts["val"] is None else "val"
        return of_part(data, part, CALIBRATION).x
    if path is None:
        path, option = request.samples, "--samples"
    if path is None:
        raise UserError(
            "--format int8 needs real samples, and the data of the run are not here: give a folder "
            "of images or an .npz file (--calibration …)"
        )
    return samples_at(path, student, option, CALIBRATION).x


def samples_at(path: Path, student: Student, option: str, limit: int) -> CheckedSamples:
    shape, read = shape_of(student.info), image_reader(student)
    return of_path(path, shape, student.class_names, read, option, limit)


def first(x: Tensor, count: int) -> Tensor:
    """``count`` samples, repeated where there are fewer."""
    return x[torch.arange(count) % len(x)]


def speed_of_teacher(teacher: nn.Module, batch: Tensor, preprocessing: str) -> Speed:
    """As the files are timed: with its preprocessing if theirs is inside."""
    if preprocessing == "outside" and isinstance(teacher, Classifier):
        return speed_of(Logits(teacher), teacher.prepare(batch))
    return speed_of(lambda x: teacher(x).logits, batch)


def student_row(
    student: Student, graph: Graph, samples: CheckedSamples, batch: Tensor, folder: Path
) -> StudentRow:
    """The numbers of the PyTorch student."""
    return StudentRow(
        parameters=count_parameters(student),
        size=bytes_of(folder, [WEIGHTS_FILE]),
        speed=speed_of(graph.module, graph.to_input(batch)),  # as the files are timed
        accuracy=accuracy(run_all(graph.expected, samples.x), samples.y),
    )


def write_record(
    folder: Path, request: Request, samples: CheckedSamples, files: Sequence[CheckedFile]
) -> None:
    """Writes ``export.json``: the numbers of the table, and the names of all files."""
    names = [name for file in files for name in file.files]
    record = {
        "files": [WEIGHTS_FILE, JSON_FILE, CARD, *names],
        "card_sha256": hash_of((folder / CARD).read_bytes()),
        "preprocessing": request.preprocessing,
        "checked_with": samples.about,
        "threads": torch.get_num_threads(),
        "batch": request.batch,
        "formats": {file.format: asdict(file) for file in files},
    }
    write_json(folder / RECORD, record)
