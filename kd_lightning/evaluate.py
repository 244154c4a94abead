"""Evaluates finished students: on the test part of their run, or on other data.

    python -m kd_lightning.evaluate outputs/<run>
    python -m kd_lightning.evaluate student.safetensors data=har data.root=/data
    python -m kd_lightning.evaluate outputs/<run> --corruptions --out robust

Students are runs or student files. All are evaluated on the same samples and
compared with the first one. Without data=…, the data are those of the first
run.
"""

import argparse
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import report_errors
from kd_lightning.config.console import console, say
from kd_lightning.config.options import command_parser
from kd_lightning.records.run_directory import is_run, make_directory, read_config

if TYPE_CHECKING:
    from kd_lightning.evaluation.labelled_set import Subject
    from kd_lightning.evaluation.student_evaluation import Evaluation, Requests
    from kd_lightning.students.load import Student

OF_ATTACKS = ("epsilon", "steps", "samples")


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("evaluate", __doc__, takes_keys=True)
    add = parser.add_argument
    add("words", nargs="+", metavar="student", help="a run or a student file; or a key of the data "
        "as in runs: data=… data.root=…, and split=test | val | train | all")  # fmt: skip
    add("--student", help="of runs with several students, one by name; else all")
    add("--out", type=Path, help="a new folder for evaluation.json, tables and pictures")
    add("--corruptions", nargs="?", const="all", metavar="KINDS",
        help="accuracy on corrupted samples; all kinds, or some: fog,contrast")  # fmt: skip
    add("--ood", nargs="+", metavar="DATA",
        help="tell the data from others: fashion_mnist data.root=/data")  # fmt: skip
    add("--adversarial", nargs="?", const="fgsm,pgd", metavar="ATTACKS",
        help="accuracy under attack: fgsm,pgd; needs foolbox")  # fmt: skip
    add("--epsilon", type=fraction, help="of the attacks (8/255)")
    add("--steps", type=int, help="of the attack pgd (10)")
    add("--samples", type=int, help="number of attacked images at most (1000)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (auto)")
    add("--allow", nargs="+", default=[], help="packages whose nets a file may build; trust them")
    add("--config-dir", type=Path, help="a folder with your own YAML files")
    return parser


def fraction(text: str) -> Fraction:
    """A number or a quotient; argparse names the option where it is neither."""
    try:
        return Fraction(text)
    except ZeroDivisionError as error:
        raise ValueError(text) from error


def evaluate(arguments: argparse.Namespace) -> "Evaluation":
    """The evaluation that the arguments ask for, printed and written."""
    # here, because they take seconds to import, and --help should not
    from kd_lightning.evaluation import student_evaluation
    from kd_lightning.evaluation.data_choice import load_data
    from kd_lightning.predictions.predict import find_device
    from kd_lightning.predictions.progress import showing_progress
    from kd_lightning.running.build import quieten

    quieten()
    check_effect(arguments)
    if arguments.out is not None:
        student_evaluation.check_folder(arguments.out)
    device = find_device(arguments.device)
    paths, overrides = split_words(arguments.words)
    subjects = load_subjects(paths, arguments.student, arguments.allow)
    own = next((path for path in paths if is_run(path)), None)
    exif = common_exif(subjects)
    labelled = load_data(overrides, own, arguments.config_dir, arguments.allow, exif)
    requests = requests_of(arguments, subjects)
    if arguments.out is not None:
        make_directory(arguments.out, "--out")
    passes = student_evaluation.count_passes(subjects, labelled, requests)
    with showing_progress(passes) as advance:
        evaluation = student_evaluation.evaluate(subjects, labelled, requests, device, advance)
    evaluation.print(console)
    if arguments.out is None:
        say("Not written: name a folder for it (--out).")
    else:
        evaluation.write(arguments.out)
        say(f"Written: {arguments.out}")
    return evaluation


def requests_of(arguments: argparse.Namespace, subjects: Sequence["Subject"]) -> "Requests":
    """What is measured beside the metrics on the samples as they are."""
    from kd_lightning.evaluation.data_choice import load_data
    from kd_lightning.evaluation.robustness.adversarial import Attacks
    from kd_lightning.evaluation.robustness.corruptions import choose_kinds
    from kd_lightning.evaluation.student_evaluation import Requests

    kinds, other, attacks = (), None, None
    if arguments.corruptions:
        kinds = choose_kinds(arguments.corruptions, subjects[0].form)
    if arguments.ood:
        name, *overrides = arguments.ood
        words = [name if "=" in name else f"data={name}", *overrides]
        exif = common_exif(subjects)
        other = load_data(words, None, arguments.config_dir, exif=exif)
    if arguments.adversarial:
        given = {name: getattr(arguments, name) for name in OF_ATTACKS}
        given = {name: value for name, value in given.items() if value is not None}
        attacks = Attacks(arguments.adversarial.split(","), **given)
    return Requests(kinds, other, attacks)


def common_exif(subjects: Sequence["Subject"]) -> bool | None:
    """False if all students saw photographs as they are, not turned as their tag says; None: the
    data decide, since a student that saw no files says True as well.
    """
    return False if all(subject.exif is False for subject in subjects) else None


def check_effect(arguments: argparse.Namespace) -> None:
    """Raises ``UserError`` for an option without effect."""
    given = [name for name in OF_ATTACKS if getattr(arguments, name) is not None]
    if given and not arguments.adversarial:
        raise UserError(f"--{given[0]} has no effect without --adversarial: add it, or remove this")
    if "steps" in given and "pgd" not in arguments.adversarial.split(","):
        raise UserError("--steps has no effect without the attack pgd: remove it")
    other_data = any(word.startswith("data=") for word in arguments.words) or arguments.ood
    if arguments.config_dir is not None and not other_data:
        raise UserError("--config-dir has no effect without data=… or --ood: remove it")


def split_words(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The students' paths, and the overrides of the data."""
    is_path = {word: "=" not in word or Path(word).expanduser().exists() for word in words}
    paths = [Path(word).expanduser() for word in words if is_path[word]]
    if not paths:
        raise UserError(f"name a run or a student file to evaluate, got only {' '.join(words)}")
    return paths, [word for word in words if not is_path[word]]


def load_subjects(
    paths: Sequence[Path], student: str | None, allow: Sequence[str]
) -> list["Subject"]:
    """All students of runs, and those in files, with different names.

    Args:
        student: of runs, only this one.
    """
    import kd_lightning
    from kd_lightning.students.file import WEIGHTS_FILE

    found: dict[str, Subject] = {}
    runs = [path for path in paths if is_run(path)]
    for path in paths:
        # a file beside runs has one student, whatever those of the runs are called
        for key in keys_of(path, student if path in runs or not runs else None):
            loaded = kd_lightning.load(path, student=key, allow=allow)
            place = path.stem if path.is_file() else path.resolve().name
            if path.is_file() and path.name == WEIGHTS_FILE:  # every run calls its files alike
                place = path.resolve().parent.name
            name = "/".join(filter(None, [place if len(paths) > 1 or not key else "", key]))
            folder = path.resolve().parent
            if name in found and folder.name == "students":
                name = f"{folder.parent.name}/{name}"
            while name in found:  # runs of the same name in other folders
                name += "'"
            found[name] = to_subject(loaded, name, f"{path} {key or ''}".strip())
    return list(found.values())


def keys_of(path: Path, student: str | None) -> list[str | None]:
    """The names of the students of a run; [None] for a file."""
    if student is not None or not is_run(path):
        return [student]
    return list(read_config(path).method.students)


def to_subject(student: "Student", name: str, source: str) -> "Subject":
    """A loaded student with a name for the tables."""
    from kd_lightning.evaluation.labelled_set import Form, Subject

    given, data = student.info["input"], student.info.get("data", {})
    form = Form(given["kind"], given["channels"], given["size"], student.transform())
    trained_on = data.get("name"), data.get("fingerprint")
    net, exif = student.net, given.get("exif")
    return Subject(name, source, net, student.class_names, form, trained_on, exif)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command. A user error is printed as one sentence, with exit code 2."""
    arguments = build_parser().parse_intermixed_args(words)
    with report_errors():
        evaluate(arguments)


if __name__ == "__main__":
    main()
