"""The studies: sweeps whose records are committed. Their tables can be rebuilt from the records.

    python -m benchmarks.studies                    the missing parts of all studies; hours
    python -m benchmarks.studies dual_digits        the missing parts of one study
    python -m benchmarks.studies ssd_ucr/GunPoint   one part of a study
    python -m benchmarks.studies --rebuild          only the tables, from the committed records

Each part of a study is a sweep. Its records and tables are in
``benchmarks/results/<study>/<part>``. A study over data sets or seeds also has tables over all of
them, in ``benchmarks/results/<study>``. A part is done if all its records are there. A part that
was stopped is resumed if its folder in ``outputs`` still exists; otherwise it starts again.
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

from kd_lightning.base.kept_files import SUMS
from kd_lightning.records.jobs import State
from kd_lightning.reports import build, correctness, write
from kd_lightning.reports.job_results import FILE, read_jsonl

RESULTS = Path(__file__).parent / "results"
OUTPUTS = Path("outputs") / "studies"


@dataclass(frozen=True)
class Study:
    """Sweeps that answer one question.

    Attributes:
        parts: name -> the arguments of its sweep, after ``python -m kd_lightning.run -m``.
        is_joined: whether the parts, which are data sets or seeds, also make tables together.
    """

    parts: dict[str, str]
    is_joined: bool = False


MADE_BY_OTHERS = ", but were made by other words, or before these were added:"
BARE = "threads=1 logger=none"
QUIET = f"{BARE} callbacks=quiet"
# a teacher and a split per seed, so that the intervals cover their variance too (and, with few
# labels, the variance of which labels these are)
PER_SEED = f"'teacher.seed=${{seed}}' 'data.split_seed=${{seed}}' {QUIET}"


def listed(*words: str) -> str:
    """A list of overrides as one argument of a command line."""
    return "[" + ",".join(f'"{word}"' for word in words) + "]"


def kd(temperature: int, soft_weight: int) -> tuple[str, str]:
    return f"method.temperature={temperature}", f"method.soft_weight={soft_weight}"


def dual(*tuned: str) -> str:
    """The variants of dual_student with the KD settings chosen on val; a variant's settings win."""
    return (
        f"sweep=dual_variants 'sweep.overrides={listed('method=dual_student', *tuned)}' {PER_SEED}"
    )


def methods(*tuned: str) -> str:
    return f"sweep=methods 'sweep.variants.kd={listed(*tuned)}' {PER_SEED}"


# The settings chosen on val in kd_tuning: with all labels, with 40 % wrong labels, with 20 labels a
# class. Each is one of several equally good settings (with noise the second of two), and all
# differences are small compared with their standard deviations.
ALL_LABELS, NOISE, FEW_LABELS = kd(1, 4), kd(8, 4), kd(2, 2)
DUAL, DUAL_NOISE, DUAL_FEW = dual(*ALL_LABELS), dual(*NOISE), dual(*FEW_LABELS)
FEW_WITH_VAL = "data.val_fraction=0.2 data.batch_size=16 teacher.batch_size=16"
FEW = "data.val_fraction=0 data.batch_size=16 teacher.batch_size=16"
# val as noisy as train, as it is where nobody knows which labels are right
NOISY_VAL = "data.noisy_val=true"
NOISY = f"data=digits data.label_noise=0.4 {NOISY_VAL}"
CLEAN_VAL = "data=digits data.label_noise=0.4"
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
# declared in docs/studies.md: 7,200 images for training, 2,400 for val. The teacher's outputs for
# 15 views of a sample, one for each epoch, are computed once for all rows.
CONTRASTS = (
    "data=fashion_mnist data.train_per_class=960 data.val_fraction=0.25 trainer.max_epochs=15 "
    f"teacher.trainer.max_epochs=30 teacher.cache=15 hardware.precision=bf16-mixed {PER_SEED}"
)
CONTRASTS_TUNING = f"sweep=kd_tuning sweep.chosen_by=val/a/accuracy {CONTRASTS} seed=100,101,102"
WEIGHTS = "method.soft_weight=1,2,4,8"
CONTRASTS_SEEDS = range(10, 20)


def dual_contrasts(*tuned: str) -> str:
    """The declared rows, with the KD settings chosen on val in ``CONTRASTS_TUNING``."""
    overrides = listed("method=dual_student", *tuned)
    return f"sweep=dual_contrasts 'sweep.overrides={overrides}' {CONTRASTS}"


# 2,000 training images, and as many of val, so that val can choose between settings
ZOO_TASK = (
    "data=fashion_mnist data.train_per_class=400 data.val_fraction=0.5 data.batch_size=64 "
    f"teacher.batch_size=64 teacher.trainer.max_epochs=20 hardware.precision=bf16-mixed {QUIET}"
)
ZOO = f"{ZOO_TASK} trainer.max_epochs=15"
# 20 labels a class for training, and as many as val; as many steps as with 2,000 images
ZOO_FEW = (
    "data=fashion_mnist data.train_per_class=40 data.val_fraction=0.5 data.batch_size=16 "
    "teacher.batch_size=16 trainer.max_epochs=40 teacher.trainer.max_epochs=50 "
    f"hardware.precision=bf16-mixed {QUIET}"
)
# 1,000 training images, 40 % of them with wrong labels, and as many of val, with right ones;
# as many steps as with 2,000 images
ZOO_NOISE = (
    "data=fashion_mnist data.train_per_class=200 data.val_fraction=0.5 data.batch_size=32 "
    "data.label_noise=0.4 teacher.batch_size=32 trainer.max_epochs=15 "
    f"teacher.trainer.max_epochs=20 hardware.precision=bf16-mixed {QUIET}"
)
# 840 training images and 360 of val: an attack of seven steps makes a training step eight times as
# long
ROBUST = (
    "data=fashion_mnist data.train_per_class=120 data.val_fraction=0.3 data.batch_size=32 "
    "teacher.batch_size=32 trainer.max_epochs=15 teacher.trainer.max_epochs=20 "
    f"hardware.precision=bf16-mixed {QUIET}"
)
SEEDS = range(5)
# from the smallest to the largest
UCR = (
    *("ItalyPowerDemand", "GunPoint", "ArrowHead", "BasicMotions", "PickupGestureWiimoteZ"),
    *("JapaneseVowels", "OSULeaf", "ACSF1"),
)
ZOO_UCR = ("ArrowHead", "GunPoint")
# declared in docs/studies.md; on fewer sets, a signed-rank test of three contrasts shows nothing
RESAMPLED = (
    *("ArrowHead", "PickupGestureWiimoteZ", "ItalyPowerDemand", "GunPoint", "BasicMotions"),
    *("JapaneseVowels", "OSULeaf", "ACSF1"),
)

STUDIES = {
    "ucr_net": Study({"four_sets": f"sweep=ucr_net {QUIET}"}),
    "kd_tuning": Study(
        {
            "digits": f"sweep=kd_tuning data=digits {PER_SEED}",
            "40_percent_noise": f"sweep=kd_tuning {NOISY} {PER_SEED}",
            "20_a_class": f"sweep=kd_tuning data=digits data.train_per_class=20 {FEW_WITH_VAL} "
            f"trainer.max_epochs=60 teacher.trainer.max_epochs=60 {PER_SEED}",
            "fashion_mnist": f"{CONTRASTS_TUNING} {WEIGHTS}",
            "fashion_mnist_40_percent_noise": f"{CONTRASTS_TUNING} {WEIGHTS} data.label_noise=0.4",
            # 8, the largest of these weights, was the best by 0.2 points; 16 is by 0.1 better
            "fashion_mnist_40_percent_noise_weight_16": f"{CONTRASTS_TUNING} "
            "method.soft_weight=16 data.label_noise=0.4",
        }
    ),
    "dual_digits": Study(
        {
            "all_labels": f"{DUAL} data=digits",
            "20_percent_noise": f"{DUAL_NOISE} data=digits data.label_noise=0.2 {NOISY_VAL}",
            "40_percent_noise": f"{DUAL_NOISE} {NOISY}",
            "40_percent_noise_clean_val": f"{DUAL_NOISE} {CLEAN_VAL}",
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
            "40_percent_noise": f"{DUAL_NOISE} {FASHION} seed=0,1,2 data.label_noise=0.4 "
            f"{NOISY_VAL}",
        }
    ),
    "dual_contrasts": Study(
        {f"seed_{n}": f"{dual_contrasts(*kd(4, 4))} seed={n}" for n in CONTRASTS_SEEDS},
        is_joined=True,
    ),
    "dual_contrasts_noise": Study(
        {
            f"seed_{n}": f"{dual_contrasts(*kd(2, 16))} data.label_noise=0.4 seed={n}"
            for n in CONTRASTS_SEEDS
        },
        is_joined=True,
    ),
    "ssd_ucr": Study(
        {name: f"sweep=ssd_ucr data.name={name} {QUIET}" for name in UCR}, is_joined=True
    ),
    "ssd_ucr_early": Study(
        {name: f"sweep=ssd_ucr_early data.name={name} {QUIET}" for name in UCR},
        is_joined=True,
    ),
    "ssd_dropout": Study(
        {name: f"sweep=dropout_placement data.name={name} {QUIET}" for name in UCR[:6]},
        is_joined=True,
    ),
    "ssd_options": Study(
        {name: f"sweep=ssd_options data.name={name} {QUIET}" for name in UCR[:3]},
        is_joined=True,
    ),
    "ucr_averages": Study(
        {name: f"sweep=ucr_averages data.name={name} {BARE}" for name in UCR},
        is_joined=True,
    ),
    "speed_options": Study(
        {
            "digits": f"sweep=speed_options data=digits {PER_SEED}",
            "ArrowHead": f"sweep=speed_options method=stochastic_self_distillation {SSD_ARROWHEAD}",
        }
    ),
    "zoo_tuning": Study({"fashion_mnist": f"sweep=zoo_tuning {ZOO}"}),
    "zoo": Study({f"seed_{n}": f"sweep=zoo {ZOO} seed={n}" for n in SEEDS}, is_joined=True),
    "zoo_equal_time": Study(
        {f"seed_{n}": f"sweep=zoo_equal_time {ZOO_TASK} seed={n}" for n in SEEDS},
        is_joined=True,
    ),
    "zoo_few_labels": Study(
        {f"seed_{n}": f"sweep=zoo {ZOO_FEW} seed={n}" for n in SEEDS}, is_joined=True
    ),
    "zoo_noise": Study(
        {f"seed_{n}": f"sweep=zoo {ZOO_NOISE} seed={n}" for n in SEEDS}, is_joined=True
    ),
    "zoo_ucr": Study(
        {name: f"sweep=zoo_ucr data.name={name} {QUIET}" for name in ZOO_UCR}, is_joined=True
    ),
    "zoo_robust": Study(
        {f"seed_{n}": f"sweep=zoo_robust {ROBUST} seed={n}" for n in SEEDS}, is_joined=True
    ),
    "ssd_resamples": Study(
        {name: f"sweep=ssd_resamples data.name={name} {QUIET}" for name in RESAMPLED},
        is_joined=True,
    ),
    "ssd_finetune": Study(
        {f"seed_{n}": f"sweep=ssd_finetune seed={n} {QUIET}" for n in range(20)},
        is_joined=True,
    ),
    "sensitivity": Study(
        {
            "temperature_threshold": f"sweep=temperature_threshold {NOISY} {PER_SEED} "
            "method.confidence_temperature=1 method.confidence_threshold=0,0.2,0.4,0.6",
            "passes_percentile": f"sweep=passes_percentile {SSD_ARROWHEAD}",
            "bandwidth": "method=stochastic_self_distillation seed=0,1,2 "
            f"method.guidance.bandwidth=0.01,0.1,1,5,auto {SSD_ARROWHEAD}",
        }
    ),
}


def parts_of(names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Study, part and arguments of every sweep of the named studies or <study>/<part>."""
    for name in names:
        study, _, only = name.partition("/")
        for part, words in STUDIES[study].parts.items():
            if only in ("", part):
                yield study, part, words


def is_done(packed: Path) -> bool:
    """Whether all records of a part are there and done."""
    path = packed / FILE
    return path.exists() and all(result.state == State.DONE for result in read_jsonl(path))


def other_words(packed: Path, words: str) -> list[str]:
    """The words by which a part was made and would not be made today, or the other way round. The
    number of threads and the loggers do not count.
    """
    made = OmegaConf.to_container(OmegaConf.load(packed / "sweep.yaml"))["command"]
    made = [word for word in made if not word.startswith("sweep.dir=")]
    return sorted(({*made} ^ {"-m", *shlex.split(words)}) - {*shlex.split(BARE)})


def run(words: str, directory: Path) -> None:
    """Starts a sweep or resumes it. A failed job does not stop it."""
    requested = ["-m", *shlex.split(words), f"sweep.dir={directory}"]
    if (directory / "sweep.yaml").exists():
        started = OmegaConf.to_container(OmegaConf.load(directory / "sweep.yaml"))["command"]
        if started != requested:
            sys.exit(f"{directory} holds another sweep, {shlex.join(started)}: remove it")
        command = ["kd_lightning.sweep", str(directory), "--resume"]
    else:
        command = ["kd_lightning.run", *requested]
    subprocess.run([sys.executable, "-m", *command], check=False)
    if not (directory / "sweep.yaml").exists():
        sys.exit("the sweep could not be started: see the message above")


def write_tables(directories: Sequence[Path], folder: Path) -> None:
    """Writes a report without checksums: its files are committed, and Git has checksums.

    Raises:
        SystemExit: a job is not done. Nothing is written then.
    """
    report = build(directories)
    lacking = sum(result.state != State.DONE for result in report.source.results)
    if lacking:
        sys.exit(
            f"{lacking} of {len(report.source.results)} jobs are not done, so nothing was written "
            f"to {folder}: see the reasons above, mend them and give the same command again"
        )
    write(report, folder)
    (folder / SUMS).unlink()


def join(name: str) -> None:
    """Writes the tables over those parts of a study that have records."""
    folder = RESULTS / name
    there = [folder / part for part in STUDIES[name].parts if (folder / part / FILE).exists()]
    if STUDIES[name].is_joined and there:
        write_tables(there, folder)
        for duplicate in (FILE, correctness.FILE, "sweep.yaml", "values.csv"):
            (folder / duplicate).unlink(missing_ok=True)


def say(line: str) -> None:
    print(line, flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    known = ", ".join(STUDIES)
    parser.add_argument(
        "studies", nargs="*", help=f"some of {known}, or <study>/<part>; default: all"
    )
    parser.add_argument("--rebuild", action="store_true", help="only the tables, from the records")
    arguments = parser.parse_args(words)
    names = arguments.studies or list(STUDIES)
    for name in names:
        study, _, part = name.partition("/")
        if study not in STUDIES:
            parser.error(f"no study '{study}': expected some of {known}")
        if part and part not in STUDIES[study].parts:
            parser.error(f"no part '{part}' of {study}: it has {', '.join(STUDIES[study].parts)}")
    for name, part, words_of_part in parts_of(names):
        packed, directory = RESULTS / name / part, OUTPUTS / name / part
        if arguments.rebuild:
            if (packed / FILE).exists():
                write_tables([packed], packed)
        elif is_done(packed):
            others = other_words(packed, words_of_part)
            say(f"{name} {part}: its records are complete{MADE_BY_OTHERS * bool(others)}")
            for word in others:
                say(f"    {word}")
        else:
            start = time.monotonic()
            run(words_of_part, directory)
            write_tables([directory], packed)
            say(
                f"{name} {part}: {(time.monotonic() - start) / 60:.1f} minutes, written to {packed}"
            )
        join(name)


if __name__ == "__main__":
    main()
