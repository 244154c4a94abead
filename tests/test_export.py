"""``python -m kd_lightning.export``, on a run on real digits and on files without their run."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from helpers import TINY, compose
from omegaconf import OmegaConf

import kd_lightning
from kd_lightning import distill
from kd_lightning.base.kept_files import write_kept
from kd_lightning.export import main
from kd_lightning.exports import onnx as onnx_format
from kd_lightning.exports.output_folder import RECORD


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student and its teacher, trained for seconds."""
    outputs = tmp_path_factory.mktemp("outputs")
    short = [
        "trainer.max_epochs=8",
        "teacher.trainer.max_epochs=2",
        "method.teacher.widths=[4,4,8,16]",
    ]
    words = ["method=kd", "data=digits", *short, "callbacks=quiet", "logger=none", "hardware=cpu"]
    return distill(*words, f"outputs={outputs}").directory


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "out"
    main([str(run), "--format", "onnx", "--format", "int8", "--out", str(out)])
    return out


@pytest.fixture
def alone(run: Path, tmp_path: Path) -> Path:
    """The student file without its run."""
    return Path(
        shutil.copy(run / "students/student/student.safetensors", tmp_path / "got.safetensors")
    )


@pytest.fixture(scope="module")
def of_floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on dark images of floats, which would all be 0 as bytes."""
    place = tmp_path_factory.mktemp("floats")
    y = np.arange(160) % 4
    noise = np.random.default_rng(0).random((160, 1, 8, 8)) / 1000
    x = (noise + y.reshape(-1, 1, 1, 1) / 3000).astype(np.float32)
    np.savez(place / "dark.npz", x=x, y=y)
    words = ["method=supervised", "data=arrays", f"data.root={place / 'dark.npz'}", "hardware=cpu"]
    words += ["model@method.students.student=mlp", "trainer.max_epochs=30", "data.batch_size=16"]
    return distill(*words, "callbacks=quiet", "logger=none", f"outputs={place}").directory


def refused(capsys: pytest.CaptureFixture, *words: object) -> str:
    """The sentence of a command that ends with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code == 2
    return capsys.readouterr().err


def test_a_student_of_floats_takes_floats_also_without_its_run(
    of_floats: Path, tmp_path: Path
) -> None:
    accuracy = json.loads((of_floats / "metrics.json").read_text())["nets"]["student"]["test"]
    assert accuracy["accuracy"] > 0.9
    alone = shutil.copy(of_floats / "students/student/student.safetensors", tmp_path)
    dark = of_floats.parent / "dark.npz"
    main([str(alone), "--samples", str(dark), "--out", str(tmp_path / "out")])
    parity = json.loads((tmp_path / "out" / RECORD).read_text())["formats"]["onnx"]["parity"]
    assert parity["accuracy"] > 0.9
    assert "values in [0, 1]" in (tmp_path / "out" / "README.md").read_text()
    words = [str(of_floats), "--preprocessing", "outside", "--out", str(tmp_path / "outside")]
    main(words)
    card = (tmp_path / "outside" / "README.md").read_text()
    assert "(x - mean) / std" in card
    assert "x / 255" not in card


def test_the_folder_has_the_student_the_files_a_card_and_a_record(exported: Path) -> None:
    files = {path.name for path in exported.iterdir()}
    record = json.loads((exported / RECORD).read_text())
    assert set(record["files"]) == files - {RECORD}
    assert files == {"student.safetensors", "student.json", "student.onnx", "student.int8.onnx",
                     "README.md", RECORD}  # fmt: skip


def test_a_card_that_was_changed_stays(
    run: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = shutil.copytree(exported, tmp_path / "out")
    (out / "README.md").write_text("mine")
    said = refused(capsys, run, "--out", out)
    assert f"{out / 'README.md'} was changed after its export" in said
    assert (out / "README.md").read_text() == "mine"


def test_the_onnx_file_has_the_tests_accuracy_and_int8_nearly(run: Path, exported: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())["nets"]["student"]["test"]
    formats = json.loads((exported / RECORD).read_text())["formats"]
    assert metrics["accuracy"] > 0.5
    assert formats["onnx"]["parity"]["accuracy"] == pytest.approx(metrics["accuracy"], abs=1e-6)
    assert formats["onnx"]["parity"]["agreement"] == 1
    assert formats["int8"]["parity"]["accuracy"] == pytest.approx(metrics["accuracy"], abs=0.05)


def test_the_exported_folder_can_be_loaded_and_agrees_with_its_onnx_file(exported: Path) -> None:
    student = kd_lightning.load(exported)
    images = torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8)
    session = onnxruntime.InferenceSession(exported / "student.onnx")
    (probabilities,) = session.run(None, {"images": images.numpy()})
    expected = student(images).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    names = session.get_modelmeta().custom_metadata_map["class_names"]
    assert json.loads(names) == student.class_names


def test_no_file_has_a_path_of_this_machine(exported: Path) -> None:
    source = os.fsencode(Path(kd_lightning.__file__).parent)
    for path in exported.glob("student.*"):
        assert source not in path.read_bytes(), path.name


def test_the_table_shows_the_student_and_its_teacher_timed_alike(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["--format", "torchscript", "--preprocessing", "outside", "--limit", "50"]
    main([str(run), *words, "--out", str(tmp_path / "out")])
    shown = capsys.readouterr().out
    assert "Checked with 50 of 359 test samples of the run" in shown
    teacher = json.loads((run / "metrics.json").read_text())["nets"]["teacher"]
    assert "teacher in PyTorch" in shown
    assert f"{teacher['parameters']:,}" in shown  # in its row, or below its name
    assert f"{teacher['test']['accuracy']:.2%}" in shown
    assert len(re.findall(r"\d ms", shown)) == 3  # student, file and teacher, one sample each
    assert "student.torchscript.pt" in shown


def test_a_teacher_of_another_architecture_is_not_timed_by_the_configured_one(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    cfg = OmegaConf.load(moved / "config.yaml")
    cfg.method.teacher.widths = [4, 4, 8, 20]  # the teacher came from a run with another net
    write_kept(moved, {"config.yaml": OmegaConf.to_yaml(cfg)})
    main([str(moved), "--format", "torchscript", "--out", str(tmp_path / "out")])
    shown = capsys.readouterr().out
    assert "teacher in PyTorch" not in shown
    assert "teacher: as recorded by the run" in " ".join(shown.split())


def test_without_the_runs_data_the_teacher_is_as_recorded(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    config = moved / "config.yaml"
    cfg = OmegaConf.load(config)
    other = compose("method=kd", "data=image_folder", "data.root=gone")
    cfg.data = OmegaConf.to_container(other, resolve=True)["data"]
    write_kept(moved, {"config.yaml": OmegaConf.to_yaml(cfg)})
    main([str(moved), "--format", "torchscript", "--out", str(tmp_path / "out")])
    shown = capsys.readouterr().out
    teacher = json.loads((run / "metrics.json").read_text())["nets"]["teacher"]
    assert "The data of the run cannot be read" in shown
    assert f"{teacher['throughput']:,.0f}" in shown
    assert "teacher: as recorded by the run" in " ".join(shown.split())


def test_a_student_file_in_its_run_finds_the_runs_data(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main([str(run / "students/student"), "--format", "torchscript", "--out", str(tmp_path / "out")])
    assert "all 359 test samples of the run" in capsys.readouterr().out


def test_a_file_alone_is_checked_with_noise_or_with_given_samples(
    alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [str(alone), "--format", "torchscript", "--out", str(tmp_path / "out")]
    main(words)
    shown = capsys.readouterr().out
    assert "64 samples of random noise" in shown
    assert "No real sample was checked: give some with --samples." in shown
    assert " teacher " not in shown
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "some.npz", x=images)
    main([*words, "--samples", str(tmp_path / "some.npz")])  # replaces the earlier export
    shown = capsys.readouterr().out
    assert "Checked with 6 samples of some.npz" in shown
    assert "noise" not in (tmp_path / "out" / "README.md").read_text()
    words = [str(alone), "--format", "int8", "--out", str(tmp_path / "int8")]
    for option in ("--samples", "--calibration"):
        main([*words, option, str(tmp_path / "some.npz")])
        assert "6 samples of some.npz, with which int8 was calibrated too:" in (
            " ".join(capsys.readouterr().out.split())
        )


@pytest.mark.slow
def test_series_are_exported_too(tmp_path: Path, store: Path) -> None:
    words = ["method=supervised", "data.kind=series", "model@method.students.student=fcn"]
    short = [word for word in TINY if not word.startswith("teacher.")]
    run = distill(*words, *short, f"outputs={tmp_path}").directory
    out = tmp_path / "out"
    main([str(run), "--out", str(out)])
    formats = json.loads((out / RECORD).read_text())["formats"]
    assert formats["onnx"]["parity"]["agreement"] == 1
    assert onnxruntime.InferenceSession(out / "student.onnx").get_inputs()[0].name == "series"


def test_a_file_that_differs_from_pytorch_leaves_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = onnx_format.write_onnx

    def broken(graph, path) -> None:
        head = next(m for m in graph.module.modules() if isinstance(m, torch.nn.Linear))
        before = head.bias.clone()
        head.bias.copy_(before + torch.arange(len(before)))
        write(graph, path)
        head.bias.copy_(before)

    monkeypatch.setattr(onnx_format, "write_onnx", broken)
    words = [run, "--format", "torchscript", "--format", "onnx", "--out", tmp_path / "out"]
    assert "--format onnx differs from PyTorch by" in refused(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_one_sentence(
    run: Path, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    sentence = refused(capsys, run, "--format", "onx", "--out", out)
    assert sentence == "Error: unknown format 'onx': did you mean onnx? (--format …)\n"
    assert "--calibration …" in refused(capsys, alone, "--format", "int8", "--out", out)
    assert "unknown place" in refused(capsys, run, "--preprocessing", "here", "--out", out)
    assert "--limit must be >= 1" in refused(capsys, run, "--limit", 0, "--out", out)
    assert "no effect without" in refused(capsys, run, "--calibration", alone, "--out", out)
    assert "unknown student" in refused(capsys, run, "--student", "b", "--out", out)
    assert "is for a run" in refused(capsys, alone, "--student", "b", "--out", out)
    assert "expected a student file" in refused(capsys, tmp_path / "none", "--out", out)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").touch()
    assert "no export has written (mine.txt)" in refused(capsys, run, "--out", out)


def test_data_that_are_not_here_are_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    config = moved / "config.yaml"
    text = config.read_text().replace("data.digits.Digits", "data.fashion_mnist.FashionMNIST")
    write_kept(moved, {"config.yaml": text})
    main([str(moved), "--format", "torchscript", "--out", str(tmp_path / "out")])
    shown = capsys.readouterr().out
    assert "The data of the run cannot be read: " in shown
    assert "random noise" in shown


def test_help_is_quick_because_it_imports_no_torch() -> None:
    program = (
        "import sys\nfrom kd_lightning.export import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "--format" in done.stdout
    assert done.stdout.strip().endswith("False")


def code_of(card: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card.read_text(), re.S)


def test_the_code_of_the_card_runs(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported)
    codes = code_of(exported / "README.md")
    assert ["kd_lightning" in code or "onnxruntime" in code for code in codes] == [True, True]
    for code in codes:
        names = {}
        exec(compile(code, "the card", "exec"), names)
        assert names["probabilities"].shape == (1, 10)


@pytest.mark.slow
def test_the_code_of_the_other_formats_runs(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = ("openvino", "torchscript", "torch_export")
    words = [word for name in formats for word in ("--format", name)]
    main([str(run), *words, "--out", str(tmp_path / "out"), "--limit", "8"])
    monkeypatch.chdir(tmp_path / "out")
    _, *codes = code_of(Path("README.md"))
    capsys.readouterr()
    printed = set()
    for code in codes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch.jit.load
            exec(compile(code, "the card", "exec"), {})
        printed.add(re.search(r"[\[(](\d)[\])]", capsys.readouterr().out)[1])
    assert (len(codes), len(printed)) == (3, 1)  # all say the same of one image


@pytest.mark.slow
def test_the_timm_code_of_the_card_computes_the_students_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = ["model@method.students.student=timm", "method.students.student.name=test_resnet"]
    short = [word for word in TINY if not word.startswith("teacher.")]
    run = distill("method=supervised", *net, *short, f"outputs={tmp_path}").directory
    main([str(run), "--format", "torchscript", "--out", str(tmp_path / "out")])
    monkeypatch.chdir(tmp_path / "out")
    (code,) = [code for code in code_of(Path("README.md")) if "import timm" in code]
    names = {}
    exec(compile(code, "the card", "exec"), names)
    expected = kd_lightning.load(".")(names["images"])
    torch.testing.assert_close(names["logits"].detach(), expected, rtol=1e-4, atol=1e-5)


def test_a_run_without_student_files_is_exported_from_its_checkpoints(
    run: Path, tmp_path: Path
) -> None:
    older = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(older / "students")
    main([str(older), "--format", "torchscript", "--out", str(tmp_path / "out")])
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    tested = json.loads((run / "metrics.json").read_text())["nets"]["student"]["test"]
    parity = record["formats"]["torchscript"]["parity"]
    assert parity["accuracy"] == pytest.approx(tested["accuracy"], abs=1e-6)
