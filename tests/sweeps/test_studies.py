"""Presets that need large data or a GPU: each of their rows takes a training step on small files
with the layout of the real ones.
"""

import copy
import importlib.util
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import STEPPED, compose
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import nn
from torchvision import datasets

from kd_lightning.base.errors import UserError
from kd_lightning.base.threads import use_threads
from kd_lightning.config.schema import check_configuration
from kd_lightning.data.biovid import FOLDER, LEVELS, list_subjects
from kd_lightning.data.har import CHANNELS
from kd_lightning.data.imagenet100 import LISTS
from kd_lightning.methods.base import Learner
from kd_lightning.reports.statistics import detectable_mean
from kd_lightning.running import build
from kd_lightning.running.preflight import check_monitors
from kd_lightning.sweeps import create
from kd_lightning.sweeps.engine import read_settings
from kd_lightning.sweeps.plan import compose_job, expand
from kd_lightning.sweeps.preset import Settings, settings_of
from kd_lightning.teachers.own_run import teacher_run
from kd_lightning.teachers.sources import Teacher, build_net

PEOPLE = ["071309_w_21", "071614_m_20", "080209_w_26"]
FEW = ["data.batch_size=4", "data.num_workers=0", "hardware=cpu"]
ONE_DATA_SET = {"ucr_archive": ["data.name=Chinatown"], "biovid_loso": ["data.fold=2"]}
# overrides that make each preset small
SMALL = {
    "imagenet100_cmc": ["data.image_size=32"],
    "imagenet100_kaggle": ["data.image_size=32"],
    "dual_fashion_gpu": [],
    "cifar100": [],
    "cifar100_pairs": [],
    "har": [],
    "ucr_archive": ONE_DATA_SET["ucr_archive"],
    "biovid_loso": [*ONE_DATA_SET["biovid_loso"], "data.length=32"],
}
# presets that inherit all of their rows
ROWS_OF = {"imagenet100_kaggle": "imagenet100_cmc", "dual_fashion_gpu": "imagenet100_cmc"}


@pytest.fixture
def files(tmp_path: Path, write_tree, write_fashion, write_cifar) -> Callable[[str], Path]:
    """files("har"): writes the data of a preset and returns its ``data.root``."""

    def imagenet100_cmc(root: Path) -> None:
        wnids = (LISTS / "cmc.txt").read_text().split()
        write_tree(root, {f"{p}/{w}": n for p, n in (("train", 2), ("val", 1)) for w in wnids})

    def imagenet100_kaggle(root: Path) -> None:
        wnids = (LISTS / "kaggle.txt").read_text().split()
        train = {f"train.X{1 + i % 4}/{wnid}": 2 for i, wnid in enumerate(wnids)}
        write_tree(root, train | {f"val.X/{wnid}": 1 for wnid in wnids})

    def dual_fashion_gpu(root: Path) -> None:
        write_fashion(root / "FashionMNIST" / "raw", gz=False)

    def cifar100(root: Path) -> None:
        write_cifar(datasets.CIFAR100, root)

    def har(root: Path) -> None:
        numbers = np.random.default_rng(0)
        for part, subjects in (("train", [1, 3]), ("test", [2])):
            (root / part / "Inertial Signals").mkdir(parents=True)
            y, rows = np.tile(np.arange(1, 7), len(subjects)), 6 * len(subjects)
            for channel in CHANNELS:
                path = root / part / "Inertial Signals" / f"{channel}_{part}.txt"
                np.savetxt(path, numbers.normal(size=(rows, 128)), fmt="%16.7e")
            np.savetxt(root / part / f"y_{part}.txt", y, "%d")
            np.savetxt(root / part / f"subject_{part}.txt", np.repeat(subjects, 6), "%d")

    def ucr_archive(root: Path) -> None:
        numbers = np.random.default_rng(0)
        (root / "Chinatown").mkdir(parents=True)
        for part in ("TRAIN", "TEST"):
            table = np.column_stack([np.arange(8) % 2 + 1, numbers.normal(size=(8, 24))])
            np.savetxt(root / "Chinatown" / f"Chinatown_{part}.tsv", table, delimiter="\t")

    def biovid_loso(root: Path) -> None:
        numbers = np.random.default_rng(0)
        columns = "time gsr ecg emg_trapezius emg_corrugator emg_zygomaticus".replace(" ", "\t")
        for person in PEOPLE:
            (root / FOLDER / person).mkdir(parents=True)
            for level in LEVELS:
                for index in (8, 34):
                    path = root / FOLDER / person / f"{person}-{level}-{index:03}_bio.csv"
                    values = numbers.normal(size=(32, 6))
                    np.savetxt(path, values, delimiter="\t", header=columns, comments="")

    writers = locals() | {"cifar100_pairs": cifar100}

    def write(preset: str) -> Path:
        root = tmp_path / preset
        writers[preset](root)
        return root

    return write


def settings(preset: str) -> Settings:
    return settings_of([f"sweep={preset}"], None)[0]


def rows(preset: str, *words: str) -> dict[str, DictConfig]:
    """Row -> the configuration of its first job."""
    found: dict[str, DictConfig] = {}
    for job in expand(settings(preset), words):
        if job.variant not in found:
            found[job.variant] = compose_job(job.overrides, None, job.shared)
    return found


def row(preset: str, name: str, *words: str) -> DictConfig:
    jobs = expand(settings(preset), words)
    return compose(*next(job.overrides for job in jobs if job.variant == name))


@pytest.fixture
def nets(monkeypatch: pytest.MonkeyPatch) -> Callable[[DictConfig, int, str], nn.Module]:
    """``build_net`` with a cache, because most rows have the same nets."""
    built: dict[str, nn.Module] = {}

    def make(config: DictConfig, seed: int, key: str) -> nn.Module:
        name = f"{OmegaConf.to_yaml(config, resolve=True)} {seed} {key}"
        if name not in built:
            built[name] = build_net(config, seed, key)
        return copy.deepcopy(built[name])

    monkeypatch.setattr(build, "build_net", make)
    return make


def step(cfg: DictConfig, nets: Callable) -> tuple[Learner, torch.Tensor]:
    """Takes a training step with an untrained teacher; returns the method and the loss."""
    check_configuration(cfg)
    use_threads(1)
    data = build.build_data(cfg)
    check_monitors(cfg, data)
    teacher = Teacher(nets(cfg.method.teacher, cfg.teacher.seed, "teacher"), "untrained", "")
    method = build.build_method(cfg, teacher)
    loss = method.training_step(next(iter(data.train_dataloader())), 0)
    loss.backward()
    return method, loss


def test_these_are_the_presets_that_are_not_composed_elsewhere() -> None:
    assert set(SMALL) == set(STEPPED)


@pytest.mark.slow
@pytest.mark.parametrize("preset", SMALL)
def test_every_row_of_a_preset_takes_a_step_with_its_own_loss(preset: str, files, nets) -> None:
    words, losses = [f"data.root={files(preset)}", *FEW, *SMALL[preset]], {}
    if preset in ROWS_OF:
        assert settings(preset).variants == settings(ROWS_OF[preset]).variants
        found = {"dual_student": row(preset, "dual_student", *words)}
    else:
        found = rows(preset, *words)
    for name, cfg in found.items():
        method, loss = step(cfg, nets)
        losses[name] = loss.item()
        for student in method.students.values():
            total = sum(p.grad.abs().sum() for p in student.parameters() if p.grad is not None)
            assert 0 < total < math.inf, name
        assert all(p.grad is None for p in method.teacher.parameters()), name
    assert all(map(math.isfinite, losses.values()))
    assert len(set(losses.values())) == len(losses), losses


def test_the_two_imagenet100_presets_have_the_two_class_lists() -> None:
    for name in ("cmc", "kaggle"):
        cfg = row(f"imagenet100_{name}", "dual_student")
        assert (cfg.data.class_list, cfg.teacher.source) == (name, "pretrained")
        nets = (cfg.method.teacher, cfg.method.students.a, cfg.method.students.b)
        assert [net.name for net in nets] == ["resnet50", "resnet18", "mobilenetv2_100"]


@pytest.mark.parametrize(
    "words",
    [["sweep=imagenet100_cmc"],
     ["sweep=imagenet100_kaggle", 'sweep.overrides=["method=dual_student"]']],
)  # fmt: skip
def test_imagenet100_may_be_prepared(words: list[str]) -> None:
    prepared = ["data=prepared", "data.root=/in100", "recipe=imagenet100"]
    tree = compose(*expand(settings("imagenet100_cmc"), [])[0].overrides)
    cfg = compose(*expand(settings_of(words, None)[0], prepared)[0].overrides)
    for key in ("optimizer", "scheduler", "trainer"):
        assert cfg[key] == tree[key]
    assert cfg.teacher.source == "pretrained"
    assert [net.name for net in cfg.method.students.values()] == [
        net.name for net in tree.method.students.values()
    ]


def aeons_folder() -> Path:
    """Found without importing the whole package, which takes seconds."""
    package = importlib.util.find_spec("aeon")
    assert package is not None, "the tests need aeon: pip install -e '.[ucr]'"
    return Path(package.submodule_search_locations[0])


def test_the_ucr_preset_has_aeons_list_of_problems_of_equal_length() -> None:
    path = aeons_folder() / "datasets" / "tsc_datasets.py"
    spec = importlib.util.spec_from_file_location("lists", path)
    lists = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lists)
    assert settings("ucr_archive").grid["data.name"] == sorted(lists.univariate_equal_length)


def test_the_bake_offs_accuracies_are_those_of_aeons_files() -> None:
    folder = aeons_folder() / "testing" / "example_results_files" / "classification" / "accuracy"
    reported = settings("ssd_resamples").reported
    assert len(reported) == 4
    for entry in reported:
        means = []
        for name in ("InceptionTime", "HC2", "WEASEL-2.0"):
            lines = (folder / f"{name}_accuracy.csv").read_text().splitlines()
            rows = {row[0]: row[1:] for row in (line.split(",") for line in lines)}
            first = rows[entry["where"]["data.name"]][:10]  # resamples 0 to 9
            means.append(f"{sum(map(float, first)) / 10:.2%}"[:-1])
        assert re.findall(r"\d\d\.\d\d", entry["note"]) == means


def test_each_of_the_87_subjects_is_left_out_once() -> None:
    preset = settings("biovid_loso")
    assert preset.grid["data.fold"] == list(range(87))
    jobs = [job for job in expand(preset, []) if job.variant == "SSD"]
    assert [job.axes["data.fold"] for job in jobs] == list(range(87))


def test_a_fold_is_a_subject(files) -> None:
    root = files("biovid_loso")
    cfg = row("biovid_loso", "SSD", "data.fold=1", "data.length=32", "data.batch_size=4")
    cfg.data.root = str(root)
    assert f"subject {PEOPLE[1]}, fold 1 of 3" in build.build_data(cfg).protocol
    assert list_subjects(root) == PEOPLE


@pytest.mark.parametrize("preset", ["har", "ucr_archive", "biovid_loso"])
def test_all_rows_of_ssd_share_teacher_and_net_and_their_epochs(preset: str) -> None:
    found = rows(preset, *ONE_DATA_SET.get(preset, []))
    for cfg in found.values():
        assert cfg.method.students.student == cfg.method.teacher
        assert (cfg.method.teacher.dropout, cfg.method.teacher.block_dropout) == (0.2, 0.1)
    assert len({str(cfg.method.teacher) for cfg in found.values()}) == 1
    from_random = [found.pop(name) for name in ("labels only", "born-again")]
    epochs = {(cfg.teacher.trainer.max_epochs, cfg.trainer.max_epochs) for cfg in found.values()}
    assert len(epochs) == 1
    assert [cfg.trainer.max_epochs for cfg in from_random] == [sum(*epochs)] * 2


STEPS = {"ssd_ucr": "max_steps", "ssd_ucr_early": "max_steps", "ssd_resamples": "max_steps",
         "ssd_finetune": "max_epochs"}  # fmt: skip


@pytest.mark.parametrize(("preset", "key"), STEPS.items())
def test_every_net_that_is_tested_was_trained_as_long(preset: str, key: str) -> None:
    lengths = set()
    for name, cfg in rows(preset).items():
        starts_from_teacher = cfg.method.get("start_from_teacher", False)
        before = cfg.teacher.trainer[key] if starts_from_teacher else 0
        lengths.add(before + cfg.trainer[key])
        assert starts_from_teacher or name not in ("SSD", "continue training"), name
    assert len(lengths) == 1


def test_shufflenets_and_mobilenets_have_a_lower_learning_rate() -> None:
    for job in expand(settings("cifar100_pairs"), []):
        is_light = "shuffle" in job.variant or "mobile" in job.variant
        assert ("optimizer.lr=0.01" in job.overrides) == is_light
    assert row("cifar100_pairs", "vgg13 to mobilenetv2").teacher.optimizer.lr == 0.05


def test_every_row_under_attack_is_attacked_alike_on_val_and_on_test() -> None:
    preset = settings("zoo_robust")
    assert preset.chosen_by == preset.columns[0] == "val/student/robust_accuracy"
    attacks = set()
    for name, cfg in rows("zoo_robust", "data=digits").items():
        of_val = cfg.method.epsilon if cfg.method.val_epsilon is None else cfg.method.val_epsilon
        attacks.add((of_val, cfg.method.step_size, cfg.method.steps, cfg.evaluation.adversarial))
        # a net that never sees an attack is chosen as one who thinks of none would choose it
        by = "robust_accuracy" if cfg.method.epsilon else "accuracy"
        assert cfg.method.choose_by == by, name
    assert attacks == {(0.1, 0.025, 7, 0.1)}


def test_rotated_views_have_one_flip_and_the_teacher_of_the_other_rows() -> None:
    plain, views = (row("zoo_cifar100", name) for name in ("kd", "SSKD"))
    (flip,) = views.data.augmentation.transforms
    assert flip._target_.endswith("RandomHorizontalFlip")
    assert (views.method.view_augmentation.size, views.method.view_augmentation.padding) == (32, 4)
    runs = [teacher_run(cfg) for cfg in (plain, views)]
    for key in ("seed", "data", "method", "optimizer", "scheduler", "trainer"):
        assert runs[0][key] == runs[1][key], key


# Published numbers, from the command line to sweep.yaml


def test_published_numbers_are_written_to_sweep_yaml(tmp_path: Path) -> None:
    words = ["sweep=har", "seed=0", f"sweep.dir={tmp_path / 'sweep'}"]
    directory = create.create_sweep(words, None, Console(quiet=True))
    assert read_settings(directory)["reported"] == settings("har").reported
    assert read_settings(directory)["reported"][0]["rows"]["SSD"] == {
        "test/student/accuracy": 91.82
    }


def test_a_wrong_number_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    wrong = "sweep.reported=[{source: x, rows: {kd: {test/a/accuracy: 0.73}}}]"
    words = [wrong, "data=digits", f"sweep.dir={tmp_path / 'sweep'}"]
    with pytest.raises(UserError, match=r"sweep.reported\[0\].rows.kd.* must be in percent"):
        create.create_sweep(words, None, Console(quiet=True))
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("sweep.compared=[nl]", r"unknown metric 'nl': did you mean nll.*sweep.compared"),
        ("sweep.chosen_by=test/a/accuracy", r"rows are chosen by val/accuracy or val/<net>/"),
        ("sweep.margin=0", r"the margin of the equivalence test"),
        ("sweep.expected_std=0", r"in points, in \(0, 100\], got 0 \(sweep.expected_std"),
        ("sweep.primary_column=test/a/nll", r"with a metric of accuracy .* got 'test/a/nll'"),
        ("sweep.primary_column=accuracy", r"<part>/<net>/<metric> .* got 'accuracy'"),
        ("sweep.primary=[[a,b]]", r"must be one of sweep.pairs, got \['a', 'b'\] \(sweep.primary"),
        (
            "sweep={primary: [[a, b]], pairs: [[a, b]], compared: [accuracy, nll]}",
            r"one column that answers the question, got the metrics accuracy, nll \(sweep.prim",
        ),
    ],
)
def test_what_a_report_cannot_do_is_refused_before_anything_is_written(
    word: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        create.create_sweep(
            [word, "data=digits", f"sweep.dir={tmp_path / 'sweep'}"], None, Console(quiet=True)
        )
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_says_what_it_can_show_before_it_runs(tmp_path: Path, capsys) -> None:
    words = ["sweep=methods", "data=digits", "seed=0,1,2", "sweep.expected_std=1.5"]
    create.create_sweep([*words, f"sweep.dir={tmp_path / 's'}"], None, Console(width=300))
    pairs = len(settings("methods").pairs)
    seen = detectable_mean(3, 1.5, level=0.05 / pairs)
    assert f"3 seeds find a difference of {seen:.1f} points in each of {pairs} contrasts" in (
        capsys.readouterr().out
    )


def test_the_power_of_a_sweep_over_data_sets_counts_the_contrasts_of_each(
    tmp_path: Path, capsys
) -> None:
    words = ["sweep=ssd_ucr", "data.name=GunPoint,ArrowHead", "seed=0,1,2"]
    more = ["sweep.expected_std=1.5", f"sweep.dir={tmp_path / 's'}"]
    create.create_sweep([*words, *more], None, Console(width=300))
    pairs = 2 * len(settings("ssd_ucr").pairs)
    seen = detectable_mean(3, 1.5, level=0.05 / pairs)
    assert f"a difference of {seen:.1f} points in each of {pairs} contrasts" in (
        capsys.readouterr().out
    )


def test_the_power_of_resamples_is_not_that_of_independent_values(tmp_path: Path, capsys) -> None:
    words = ["sweep=ssd_resamples", "data.name=GunPoint", "sweep.expected_std=1.5"]
    create.create_sweep([*words, f"sweep.dir={tmp_path / 's'}"], None, Console(width=300))
    assert "Power: resamples of one data set have samples in common" in capsys.readouterr().out


def test_a_search_has_one_goal(tmp_path: Path) -> None:
    words = ["sweep=search", "data=digits", "sweep.chosen_by=val/a/robust_accuracy"]
    with pytest.raises(UserError, match="a search tries for the highest val/accuracy"):
        create.create_sweep([*words, f"sweep.dir={tmp_path / 's'}"], None, Console(quiet=True))
    assert not (tmp_path / "s").exists()


def test_the_list_describes_each_preset_in_one_line(capsys, monkeypatch) -> None:
    from kd_lightning.list import main

    monkeypatch.setattr("sys.argv", ["list", "sweeps"])
    main()
    lines = capsys.readouterr().out.splitlines()
    by_name = {line.split()[0]: line for line in lines}
    for preset in SMALL:
        assert len(by_name[preset]) < 160
    assert not any(line.startswith("_") for line in lines)


def test_a_checkpoint_callback_may_monitor_nothing() -> None:
    cfg = compose("method=kd", "+callbacks.own={monitor: null}")
    check_monitors(cfg, build.build_data(cfg))
