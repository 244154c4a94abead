"""The studies: sweeps whose records are committed, run once and rebuilt from these records.

    python -m benchmarks.studies                    what is missing of all of them; hours
    python -m benchmarks.studies dual_digits        of one
    python -m benchmarks.studies ssd_ucr/GunPoint   one part of one
    python -m benchmarks.studies --rebuild          the tables alone, from the committed records

Each part of a study is a sweep; its records and tables lie in
``benchmarks/results/<study>/<part>``, and a study over data sets has also one table of all, from
their records, in ``benchmarks/results/<study>``. A part whose records are all there is done. One
that was stopped goes on where it was if ``outputs`` is still there, and else begins again.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from kd_lightning.records.jobs import State
from kd_lightning.reports import build, write
from kd_lightning.reports.job_results import FILE, read_jsonl

RESULTS = Path(__file__).parent / "results"
OUTPUTS = Path("outputs") / "studies"


@dataclass(frozen=True)
class Study:
    """Sweeps with one question.

    Attributes:
        parts: name -> the words of its sweep, after ``python -m kd_lightning.run -m``.
        over_data_sets: the parts are the data sets of one table.
    """

    parts: dict[str, str]
    over_data_sets: bool = False


BARE = "threads=1 logger=none"
QUIET = f"{BARE} callbacks=quiet"
# so the intervals cover the teacher, the split and, where labels are few, which ones they are
WHOLE = f"'teacher.seed=${{seed}}' 'data.split_seed=${{seed}}' {QUIET}"


def listed(*words: str) -> str:
    """A list of overrides as a word of a command line has it."""
    return "[" + ",".join(f'"{word}"' for word in words) + "]"


def kd(temperature: int, soft_weight: int) -> tuple[str, str]:
    return f"method.temperature={temperature}", f"method.soft_weight={soft_weight}"


def dual(*tuned: str) -> str:
    """The variants of dual_student with KD as val has tuned it; what a variant sets itself wins."""
    return f"sweep=dual_variants 'sweep.overrides={listed('method=dual_student', *tuned)}' {WHOLE}"


def methods(*tuned: str) -> str:
    return f"sweep=methods 'sweep.variants.kd={listed(*tuned)}' {WHOLE}"


# what val chose in kd_tuning: with all labels, with 40 % of them wrong, with 20 a class; one of
# equals (with noise the second of two), and the differences are small beside their deviations
ALL_LABELS, NOISE, FEW_LABELS = kd(1, 4), kd(8, 4), kd(2, 2)
DUAL, DUAL_NOISE, DUAL_FEW = dual(*ALL_LABELS), dual(*NOISE), dual(*FEW_LABELS)
FEW_WITH_VAL = "data.val_fraction=0.2 data.batch_size=16 teacher.batch_size=16"
FEW = "data.val_fraction=0 data.batch_size=16 teacher.batch_size=16"
NOISY = "data=digits data.label_noise=0.4"
SMOOTHED = ",".join(
    listed(f"method.label_smoothing={share}", "method.label_smoothing=0")
    for share in (0.05, 0.1, 0.2)
)
SMOOTHING = (
    "method=supervised seed=0,1,2,3,4 method.label_smoothing=0,0.05,0.1,0.2 "
    f"'sweep.pairs=[{SMOOTHED}]' 'data.split_seed=${{seed}}' {QUIET}"
)
SSD_NET = (
    "model@method.teacher=fcn 'method.teacher.widths=[32,64,32]' method.teacher.dropout=0.2 "
    "method.teacher.block_dropout=0.0 data.val_fraction=0 'teacher.seed=${seed}' "
    "teacher.trainer.max_epochs=10000 +teacher.trainer.max_steps=1500 "
    "trainer.max_epochs=10000 trainer.max_steps=750 "
    "optimizer.lr=3.0e-3 teacher.optimizer.lr=3.0e-3"
)
SSD_ARROWHEAD = f"data=ucr data.name=ArrowHead {SSD_NET} {QUIET}"
FASHION = "data=fashion_mnist data.train_per_class=800 trainer.max_epochs=15"
# from small to large
UCR = (
    *("ItalyPowerDemand", "GunPoint", "ArrowHead", "BasicMotions", "PickupGestureWiimoteZ"),
    *("JapaneseVowels", "OSULeaf", "ACSF1"),
)

STUDIES = {
    "ucr_net": Study({"four_sets": f"sweep=ucr_net {QUIET}"}),
    "kd_tuning": Study(
        {
            "digits": f"sweep=kd_tuning data=digits {WHOLE}",
            "40_percent_noise": f"sweep=kd_tuning {NOISY} {WHOLE}",
            "20_a_class": f"sweep=kd_tuning data=digits data.train_per_class=20 {FEW_WITH_VAL} "
            f"trainer.max_epochs=60 teacher.trainer.max_epochs=60 {WHOLE}",
        }
    ),
    "dual_digits": Study(
        {
            "all_labels": f"{DUAL} data=digits",
            "20_percent_noise": f"{DUAL_NOISE} data=digits data.label_noise=0.2",
            "40_percent_noise": f"{DUAL_NOISE} {NOISY}",
            "20_a_class": f"{DUAL_FEW} data=digits data.train_per_class=20 {FEW} "
            "trainer.max_epochs=60 teacher.trainer.max_epochs=60",
            "5_a_class": f"{DUAL_FEW} data=digits data.train_per_class=5 {FEW} "
            "trainer.max_epochs=200 teacher.trainer.max_epochs=200",
        }
    ),
    "methods_digits": Study(
        {
            "all_labels": f"{methods(*ALL_LABELS)} data=digits",
            "40_percent_noise": f"{methods(*NOISE)} {NOISY}",
        }
    ),
    "label_smoothing": Study(
        {"digits": f"{SMOOTHING} data=digits", "40_percent_noise": f"{SMOOTHING} {NOISY}"}
    ),
    "dual_fashion": Study(
        {
            "8000_images": f"{DUAL} {FASHION}",
            "40_percent_noise": f"{DUAL_NOISE} {FASHION} seed=0,1,2 data.label_noise=0.4",
        }
    ),
    "ssd_ucr": Study(
        {name: f"sweep=ssd_ucr data.name={name} {QUIET}" for name in UCR}, over_data_sets=True
    ),
    "ssd_ucr_early": Study(
        {name: f"sweep=ssd_ucr_early data.name={name} {QUIET}" for name in UCR},
        over_data_sets=True,
    ),
    "ssd_dropout": Study(
        {name: f"sweep=dropout_placement data.name={name} {QUIET}" for name in UCR[:6]},
        over_data_sets=True,
    ),
    "ssd_options": Study(
        {name: f"sweep=ssd_options data.name={name} {QUIET}" for name in UCR[:3]},
        over_data_sets=True,
    ),
    "ucr_averages": Study(
        {name: f"sweep=ucr_averages data.name={name} {BARE}" for name in UCR},
        over_data_sets=True,
    ),
    "speed_options": Study(
        {
            "digits": f"sweep=speed_options data=digits {WHOLE}",
            "ArrowHead": f"sweep=speed_options method=stochastic_self_distillation {SSD_ARROWHEAD}",
        }
    ),
    "sensitivity": Study(
        {
            "temperature_threshold": f"sweep=temperature_threshold {NOISY} {WHOLE} "
            "method.confidence_temperature=1 method.confidence_threshold=0,0.2,0.4,0.6",
            "passes_percentile": f"sweep=passes_percentile {SSD_ARROWHEAD}",
            "bandwidth": "method=stochastic_self_distillation seed=0,1,2 "
            f"method.guidance.bandwidth=0.01,0.1,1,5,auto {SSD_ARROWHEAD}",
        }
    ),
}


def parts_of(names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Study, part and words of every sweep of some studies, or of some <study>/<part>."""
    for name in names:
        study, _, only = name.partition("/")
        for part, words in STUDIES[study].parts.items():
            if only in ("", part):
                yield study, part, words


def is_done(packed: Path) -> bool:
    """Whether the records of a part are all there."""
    path = packed / FILE
    return path.exists() and all(result.state == State.DONE for result in read_jsonl(path))


def run(words: str, directory: Path) -> None:
    """Starts a sweep, or goes on with it. A job that fails is named in the report, and no more."""
    asked = ["-m", *shlex.split(words), f"sweep.dir={directory}"]
    if (directory / "sweep.yaml").exists():
        begun = OmegaConf.to_container(OmegaConf.load(directory / "sweep.yaml"))["command"]
        if begun != asked:
            sys.exit(f"{directory} was begun as another sweep, {shlex.join(begun)}: remove it")
        command = ["kd_lightning.sweep", str(directory), "--resume"]
    else:
        command = ["kd_lightning.run", *asked]
    subprocess.run([sys.executable, "-m", *command], check=False)
    if not (directory / "sweep.yaml").exists():
        sys.exit("the sweep could not be started: why stands above")


def join(name: str) -> None:
    """Writes the tables over the data sets of a study that are there; their records lie there."""
    folder = RESULTS / name
    there = [folder / part for part in STUDIES[name].parts if (folder / part / FILE).exists()]
    if STUDIES[name].over_data_sets and there:
        write(build(there), folder)
        for repeated in (FILE, "sweep.yaml", "values.csv"):
            (folder / repeated).unlink()


def say(line: str) -> None:
    print(line, flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    known = ", ".join(STUDIES)
    parser.add_argument("studies", nargs="*", help=f"of {known}, or <study>/<part>; all if none")
    parser.add_argument("--rebuild", action="store_true", help="the tables, from the records")
    given = parser.parse_args(words)
    names = given.studies or list(STUDIES)
    for name in names:
        study, _, part = name.partition("/")
        if study not in STUDIES:
            parser.error(f"no study '{study}': expected some of {known}")
        if part and part not in STUDIES[study].parts:
            parser.error(f"no part '{part}' of {study}: it has {', '.join(STUDIES[study].parts)}")
    for name, part, words_of_part in parts_of(names):
        packed, directory = RESULTS / name / part, OUTPUTS / name / part
        if given.rebuild:
            if (packed / FILE).exists():
                write(build([packed]), packed)
        elif is_done(packed):
            say(f"{name} {part}: its records are there")
        else:
            begun = time.monotonic()
            run(words_of_part, directory)
            write(build([directory]), packed)
            say(
                f"{name} {part}: {(time.monotonic() - begun) / 60:.1f} minutes, written to {packed}"
            )
        join(name)


if __name__ == "__main__":
    main()
