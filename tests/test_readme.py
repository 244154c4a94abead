"""Every command of the README runs as printed; those that need files get small ones of the real
layout at the place that is printed, and all of them are made short.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
from helpers import DISTILLERS, compose
from safetensors.torch import save_file

from kd_lightning.config.schema import check_targets
from kd_lightning.prepare import prepare
from kd_lightning.run import distill
from kd_lightning.sweeps import create, plan

README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = [
    line.split(" #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.startswith("python -m kd_lightning.run")
]
PREPARES = re.findall(r"^python -m kd_lightning\.prepare (.*)$", README, re.M)
SHORT = ["trainer.max_epochs=1", "callbacks=quiet"]
SHORT_TEACHER = ["teacher.trainer.max_epochs=1", "teacher.batch_size=8"]
SMALL_IMAGES = ["data.image_size=32", "data.batch_size=8", "data.num_workers=0"]


def in_its_place(words: list[str], place: Path) -> list[str]:
    return [re.sub(r"=/(data|models)", rf"={place}/\1", word) for word in words]


def write_stand_ins(place: Path, write_tree, write_fashion) -> None:
    write_fashion(place / "data" / "FashionMNIST" / "raw", gz=False)
    wnids = (Path(__file__).parent.parent / "kd_lightning/data/class_lists/cmc.txt").read_text()
    counts = {f"{p}/{w}": n for p, n in (("train", 2), ("val", 1)) for w in wnids.split()}
    write_tree(place / "data" / "imagenet", counts)
    flowers = {f"{p}/{c}": n for p, n in (("train", 6), ("test", 2)) for c in ("daisy", "rose")}
    write_tree(place / "data" / "flowers", flowers)
    for command in PREPARES:
        words = in_its_place(shlex.split(command), place)
        prepare(*words, "data.num_workers=0", "data.image_size=32")
    numbers = np.random.default_rng(0)
    x, y = numbers.normal(size=(96, 3, 20)).astype("float32"), np.arange(96) % 4
    np.savez(place / "data" / "machines.npz", x=x, y=y)
    (place / "models").mkdir()
    for name, classes in (("flowers", 2), ("imagenet", 1000)):
        net = timm.create_model("resnet50", num_classes=classes)
        save_file(net.state_dict(), place / "models" / f"{name}.safetensors")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture
def in_place(place: Path, write_tree, write_fashion, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    if not (place / "models").exists():
        write_stand_ins(place, write_tree, write_fashion)
    return place


def made_short(words: list[str], place: Path) -> list[str]:
    """The command with its files where they are and as little work as shows that it runs."""
    words = in_its_place(words, place)
    short = list(SHORT)
    if "teacher" in compose(*words).method:
        short += SHORT_TEACHER
    if "data=fashion_mnist" in words:
        short += ["data.batch_size=8"]
    if any("imagenet" in word or "flowers" in word for word in words):
        short += SMALL_IMAGES
    if {"data=image_folder", "data=prepared"} & set(words):
        # what a command without its own teacher would download
        short += ["method.teacher.weights=none"]
    if "data=imagenet100" in words:
        short += [f"teacher.source={place}/models/imagenet.safetensors"]
    if "hardware=gpu" in words:
        short += ["hardware=cpu"]
    return [*words, *short]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the mean weight")  # stand-in teachers are sure of nothing
@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs_as_printed(command: str, in_place: Path) -> None:
    words = shlex.split(command)[3:]
    if words[:1] == ["-m"]:  # its jobs are composed; sweeps/test_engine.py runs some
        of_sweep, of_jobs = plan.split(words[1:])
        settings, launcher, _ = plan.settings_of(of_sweep, None)
        check_targets(launcher, "launcher")
        if settings.search is None:
            jobs = plan.expand(settings, of_jobs)
        else:
            content = {"overrides": [*settings.overrides, *of_jobs]}
            jobs = [plan.variation_of(content, create.example_values(settings.search))]
        specs, _ = plan.job_specs(jobs, folder=".", config_dir=None)
        assert len(specs) == len(jobs) > 0
        return
    for printed in re.findall(r"outputs/\S*-digits_\w+", command):
        method = re.search(r"_(\w+)-digits", printed).group(1)
        if not (in_place / printed).exists():
            teacher = SHORT_TEACHER if method in DISTILLERS else []
            own = [] if teacher else ["model@method.students.student=digits/teacher"]
            distill(f"method={method}", f"run_dir={printed}", *SHORT, *teacher, *own)
    if any(word.startswith("resume=") for word in words):
        assert distill(*words).directory == Path(words[0].removeprefix("resume="))
        return
    if "hardware=ddp" in words:
        words = [word for word in words if not word.startswith("hardware")]  # tests/test_ddp.py
    result = distill(*made_short(words, in_place))
    assert (result.directory / "table.md").exists()


def test_prepare_is_printed() -> None:
    assert PREPARES


def test_python_example_runs(in_place: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    example = example.replace('max_epochs=5"', 'max_epochs=1", "teacher.trainer.max_epochs=1"')
    exec(compile(example, "README.md", "exec"), {})


def test_every_method_and_data_set_is_in_a_table() -> None:
    conf = Path(__file__).parent.parent / "conf"
    for group in ("method", "data"):
        for path in (conf / group).glob("[!_]*.yaml"):
            assert f"`{path.stem}`" in README


def test_every_linked_file_exists() -> None:
    root = Path(__file__).parent.parent
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (root / link).exists(), link


@pytest.mark.parametrize("module", ["list", "sweep", "report"])
def test_the_other_commands_are_as_printed(module: str) -> None:
    commands = re.findall(rf"^python -m kd_lightning\.{module}\b.*$", README, re.M)
    assert commands
    for command in commands:
        words = shlex.split(command.split(" #")[0])[3:]
        if module == "list":
            subprocess.run([sys.executable, "-m", "kd_lightning.list", *words], check=True)
        else:  # tests/test_report.py and sweeps/test_engine.py run them
            known = subprocess.run(
                [sys.executable, "-m", f"kd_lightning.{module}", "--help"],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            assert all(word in known for word in words if word.startswith("--"))
