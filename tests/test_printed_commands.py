"""Every command of the README and of the pages in docs/ works as printed.

Commands that need files get small ones, of the real layout, at the place that is printed. A run is
made short. One that says nothing which an earlier one has not said is only composed.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers import DISTILLERS, PAGES, ROOT, compose
from safetensors.torch import save_file

from kd_lightning import distill, evaluate, export, predict
from kd_lightning.config.schema import check_configuration, check_targets
from kd_lightning.prepare import prepare
from kd_lightning.sweeps import create, plan
from kd_lightning.sweeps.preset import settings_of


def printed(kind: str, language: str = "bash") -> list[str]:
    """The commands of a kind in all pages, each once, without their comments."""
    lines = [
        line.split(" #")[0].strip()
        for page in PAGES.values()
        for block in re.findall(rf"```{language}\n(.*?)```", page, re.S)
        for line in block.splitlines()
    ]
    return list(dict.fromkeys(line for line in lines if line.startswith(kind)))


def topics(words: list[str]) -> set[str]:
    """What a command uses: choices with what is chosen, other keys without their values."""
    keys = {word if "=" in word and is_choice(word) else word.split("=")[0] for word in words}
    chosen = [word for word in words if word.startswith(("method=", "data="))]
    return {*keys, " ".join(sorted(chosen))}


def is_choice(word: str) -> bool:
    key = word.split("=")[0].lstrip("+~")
    return "@" in key or "." not in key


def with_new_topics(commands: list[str]) -> list[str]:
    """The commands that use something, or a method with data, that no earlier one uses."""
    new, seen = [], set()
    for command in commands:
        words = topics([w for w in words_of(command) if w not in DDP])
        if not words <= seen:
            new.append(command)
        seen |= words
    return new


def words_of(command: str) -> list[str]:
    return [word for word in shlex.split(command)[3:] if word != "--plan"]


# tests/test_ddp.py runs on two processes
DDP = ("hardware=ddp", "hardware.devices=2", "hardware.accelerator=cpu")
ALL = printed("python -m kd_lightning.run")
SWEEPS = [command for command in ALL if words_of(command)[:1] == ["-m"]]
RUNS = [command for command in ALL if command not in SWEEPS]
FULL = with_new_topics(RUNS)
PREPARES = printed("python -m kd_lightning.prepare")
SHORT = ["trainer.max_epochs=1", "callbacks=quiet"]
SHORT_TEACHER = ["teacher.trainer.max_epochs=1", "teacher.check=warn"]
SMALL_IMAGES = ["data.image_size=32", "data.batch_size=8", "data.num_workers=0"]


def in_its_place(words: list[str], place: Path) -> list[str]:
    return [re.sub(r"=/(data|models)", rf"={place}/\1", word) for word in words]


def write_stand_ins(place: Path, write_tree, write_fashion) -> None:
    write_fashion(place / "data" / "FashionMNIST" / "raw", gz=False)
    wnids = (ROOT / "kd_lightning/data/class_lists/cmc.txt").read_text()
    counts = {f"{p}/{w}": n for p, n in (("train", 2), ("val", 1)) for w in wnids.split()}
    write_tree(place / "data" / "imagenet", counts)
    flowers = {f"{p}/{c}": n for p, n in (("train", 6), ("test", 2)) for c in ("daisy", "rose")}
    write_tree(place / "data" / "flowers", flowers)
    for command in PREPARES:
        words = in_its_place(words_of(command), place)
        prepare(*words, "data.num_workers=0", "data.image_size=32")
    numbers = np.random.default_rng(0)
    x, y = numbers.normal(size=(96, 3, 20)).astype("float32"), np.arange(96) % 4
    np.savez(place / "data" / "machines.npz", x=x, y=y)
    (place / "models").mkdir()
    for name, classes in (("flowers", 2), ("imagenet", 1000)):
        net = timm.create_model("resnet50", num_classes=classes)
        save_file(net.state_dict(), place / "models" / f"{name}.safetensors")
        wrapped = {f"model.{key}": value for key, value in net.state_dict().items()}
        content = {"state_dict": {**wrapped, "criterion.weight": torch.ones(classes)}}
        torch.save(content, place / "models" / f"{name}.ckpt")
    (example,) = printed_blocks("python", "def small(")
    (place / "my_networks.py").write_text(example)
    (example,) = printed_blocks("yaml", "my_networks.small")
    (place / "my_conf" / "model").mkdir(parents=True)
    (place / "my_conf" / "model" / "small.yaml").write_text(example)


def printed_blocks(language: str, text: str) -> list[str]:
    """The blocks in a language that contain a text."""
    blocks = [re.findall(rf"```{language}\n(.*?)```", page, re.S) for page in PAGES.values()]
    return [block for of_page in blocks for block in of_page if text in block]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("printed")


@pytest.fixture
def in_place(place: Path, write_tree, write_fashion, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)  # as `python -m` does
    if not (place / "models").exists():
        write_stand_ins(place, write_tree, write_fashion)
    return place


def made_short(words: list[str], place: Path) -> list[str]:
    """The command with its files where they are and as little work as shows that it runs."""
    words = in_its_place(words, place)
    short = list(SHORT)
    methods = [word.removeprefix("method=") for word in words if word.startswith("method=")]
    is_given = "data=imagenet100" in words or any(w.startswith("teacher.source=/") for w in words)
    if not methods or methods[0] in DISTILLERS:  # the default is one
        # why a given teacher is wrong takes many passes: tests/running asks that
        short += ["teacher.trainer.max_epochs=1", f"teacher.check={'off' if is_given else 'warn'}"]
        if any(word.startswith("data.root=") for word in words):  # the files here are few
            short += ["teacher.batch_size=8"]
    if "data=fashion_mnist" in words:
        short += ["data.batch_size=8"]
    if any("imagenet" in word or "flowers" in word for word in words):
        short += SMALL_IMAGES
    if "method=stochastic_self_distillation" in words:
        short += ["method.num_passes=3"]
    if {"data=image_folder", "data=prepared"} & set(words):
        # the usual teacher is downloaded; one of the commands builds it
        is_kept = "data=prepared" in words or any(w.startswith("model@method.t") for w in words)
        short += ["method.teacher.weights=none" if is_kept else "model@method.teacher=resnet8"]
    if "data=imagenet100" in words:
        short += [f"teacher.source={place}/models/imagenet.safetensors", "data.batch_size=64"]
    if "hardware=gpu" in words:
        short += ["hardware=cpu"]
    return [*words, *short]


def without_config_dir(words: list[str]) -> tuple[list[str], str | None]:
    if "--config-dir" not in words:
        return words, None
    place = words.index("--config-dir")
    return [*words[:place], *words[place + 2 :]], words[place + 1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the mean weight")  # stand-in teachers are sure of nothing
@pytest.mark.parametrize("command", FULL)
def test_a_run_works_as_printed(command: str, in_place: Path) -> None:
    words, config_dir = without_config_dir(words_of(command))
    for directory in re.findall(r"outputs/\S*-digits_\w+", command):
        method = re.search(r"_(\w+)-digits", directory).group(1)
        if not (in_place / directory).exists():
            teacher = SHORT_TEACHER if method in DISTILLERS else []
            own = [] if teacher else ["model@method.students.student=digits/teacher"]
            distill(f"method={method}", f"run_dir={directory}", *SHORT, *teacher, *own)
    if any(word.startswith("resume=") for word in words):
        assert distill(*words).directory == Path(words[0].removeprefix("resume="))
        return
    words = [word for word in words if word not in DDP]
    result = distill(*made_short(words, in_place), config_dir=config_dir)
    assert (result.directory / "table.md").exists()


@pytest.mark.parametrize("command", [command for command in RUNS if command not in FULL])
def test_a_run_of_known_choices_composes(command: str) -> None:
    check_configuration(compose(*words_of(command)))


@pytest.mark.parametrize("command", SWEEPS)
def test_the_jobs_of_a_sweep_compose(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = printed_blocks("yaml", "my_conf/sweep/")
    preset = Path(re.search(r"my_conf/sweep/\w+\.yaml", example)[0])
    preset.parent.mkdir(parents=True)
    preset.write_text(example)
    words, config_dir = without_config_dir(words_of(command)[1:])
    of_sweep, of_jobs = plan.split(words)
    settings, launcher, _ = settings_of(of_sweep, config_dir)
    check_targets(launcher, "launcher")
    if settings.search is None:
        jobs = plan.expand(settings, of_jobs)
    else:
        content = {"overrides": [*settings.overrides, *of_jobs]}
        examples = create.example_values(settings.search)
        jobs = [plan.variation_of(content, values) for values in examples]
    assert jobs
    # all rows of each preset are composed in tests/sweeps/test_plan.py
    plan.job_specs([*jobs[:2], jobs[-1]], folder=".", config_dir=config_dir)


def test_every_kind_of_command_is_printed() -> None:
    assert len(FULL) > 15
    assert len(SWEEPS) > 4
    assert PREPARES


@pytest.fixture
def run_in_place(in_place: Path) -> Path:
    """The run on flowers that is printed, with small nets."""
    (name,) = {
        name
        for page in PAGES.values()
        for name in re.findall(r"outputs/\S+-image_folder_\w+", page)
    }
    if not (in_place / name).exists():
        nets = ["model@method.students.a=timm", "method.students.a.name=test_resnet"]
        nets += ["model@method.students.b=resnet8"]
        flowers = [f"data.root={in_place}/data/flowers", *SMALL_IMAGES, "hardware=cpu"]
        words = ("method=mutual_learning", "data=image_folder", f"run_dir={name}")
        distill(*words, *nets, *flowers, *SHORT)
    return in_place


@pytest.mark.slow
@pytest.mark.parametrize("command", printed("python -m kd_lightning.predict"))
def test_a_prediction_works_as_printed(
    command: str, run_in_place: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [re.sub(r"^/data", f"{run_in_place}/data", word) for word in words_of(command)]
    predict.main([*words, "--device", "cpu", "--workers", "0"])
    assert re.search(r"\d samples predicted", capsys.readouterr().err)
    assert "--out" not in words or Path(words[words.index("--out") + 1]).stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("command", printed("python -m kd_lightning.export"))
def test_an_export_works_as_printed(command: str, run_in_place: Path) -> None:
    words = words_of(command)
    export.main(words)
    assert Path(words[words.index("--out") + 1], "README.md").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", printed("python -m kd_lightning.evaluate"))
def test_an_evaluation_works_as_printed(command: str, run_in_place: Path) -> None:
    words = [re.sub(r"=/data", f"={run_in_place}/data", word) for word in words_of(command)]
    if "data=image_folder" in words:
        words.insert(1, "data.num_workers=0")
    evaluate.main([*words, "--device", "cpu"])
    assert "--out" not in words or Path(words[words.index("--out") + 1], "evaluation.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "example",
    printed_blocks("python", "/students/") + printed_blocks("python", "kd_lightning.load("),
)
def test_a_student_is_used_as_printed(example: str, run_in_place: Path) -> None:
    example = example.replace('"/data', f'"{run_in_place}/data')
    exec(compile(example, "the example", "exec"), {})


@pytest.mark.slow
def test_python_example_runs(in_place: Path) -> None:
    (example,) = printed_blocks("python", "distill(")
    example = example.replace(
        'max_epochs=5"', 'max_epochs=1", "teacher.trainer.max_epochs=1", "teacher.check=warn"'
    )
    exec(compile(example, "the example", "exec"), {})


@pytest.mark.parametrize("command", printed("python -m kd_lightning.list"))
def test_a_list_works_as_printed(command: str) -> None:
    subprocess.run([sys.executable, "-m", "kd_lightning.list", *words_of(command)], check=True)


@pytest.mark.parametrize("module", ["sweep", "report"])
def test_the_options_of_other_commands_exist(module: str) -> None:
    """``tests/test_report.py`` and ``tests/sweeps/test_engine.py`` run them."""
    commands = printed(f"python -m kd_lightning.{module}")
    assert commands
    options = subprocess.run(
        [sys.executable, "-m", f"kd_lightning.{module}", "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for word in [word for command in commands for word in words_of(command)]:
        assert not word.startswith("--") or word in options
