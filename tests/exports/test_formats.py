"""Every format computes what PyTorch computes, for every kind of net and any batch size."""

import importlib.util
import os
import zipfile
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from nets_to_export import graph_of, samples_of

import kd_lightning
from kd_lightning.base.errors import UserError
from kd_lightning.exports import formats, parity
from kd_lightning.exports.checked_files import write_checked, write_format
from kd_lightning.exports.formats import FORMATS, check_formats, format_module

EXACT = [name for name in FORMATS if name != "int8"]


def differences(kind: str, name: str, folder: Path, preprocessing: str) -> parity.Parity:
    graph, samples = graph_of(kind, preprocessing), samples_of(kind)
    run = write_format(name, graph, folder, None)
    assert sorted(path.name for path in folder.iterdir()) == sorted(format_module(name).FILES)
    for count in (1, 2, 5):
        assert run(graph.to_input(samples.x[:count])).shape == (count, 5)
    return parity.check_parity(name, run, graph, samples, exact=True)


@pytest.mark.parametrize(
    ("kind", "preprocessing"),
    [("timm", "inside"), ("images", "inside"), ("series", "inside"), ("images", "outside")],
)
def test_onnx_computes_the_outputs_of_every_kind_of_net(
    kind: str, preprocessing: str, tmp_path: Path
) -> None:
    result = differences(kind, "onnx", tmp_path, preprocessing)
    assert result.difference < 2e-5
    assert result.agreement == 1


@pytest.mark.parametrize("name", [name for name in EXACT if name != "onnx"])
def test_every_other_format_computes_the_same(name: str, tmp_path: Path) -> None:
    result = differences("images", name, tmp_path, "inside")
    assert result.difference < 2e-5
    assert result.agreement == 1


def test_the_onnx_file_stands_by_itself_and_says_what_it_takes(tmp_path: Path) -> None:
    write_format("onnx", graph_of("images"), tmp_path, None)
    onnx.checker.check_model(tmp_path / "student.onnx", full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx")
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == (
        "images",
        "tensor(uint8)",
        ["batch", 3, 16, 16],
    )
    assert (result.name, result.type) == ("probabilities", "tensor(float)")
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["input"] == "uint8 of shape (batch, 3, 16, 16), values 0 to 255"
    images = samples_of("images").x.numpy()
    (probabilities,) = session.run(None, {"images": images})
    torch.testing.assert_close(torch.from_numpy(probabilities).sum(1), torch.ones(len(images)))


def test_outside_takes_normalized_samples_and_gives_logits(tmp_path: Path) -> None:
    write_format("onnx", graph_of("series", "outside"), tmp_path, None)
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx")
    assert session.get_inputs()[0].name == "series"
    assert session.get_outputs()[0].name == "logits"
    assert "mean [1.0, 2.0], std [3.0, 4.0]" in session.get_modelmeta().custom_metadata_map["input"]


@pytest.mark.slow
def test_int8_is_smaller_and_only_reported(tmp_path: Path) -> None:
    graph, samples = graph_of("images"), samples_of("images")
    exact, small = write_checked(
        graph, ["onnx", "int8"], tmp_path, samples, samples.x, samples.x[:8]
    )
    assert small.size < exact.size / 2
    assert small.parity.difference > small.parity.allowed > exact.parity.difference
    assert small.parity.agreement > 0.8
    kinds = [node.op_type for node in onnx.load(tmp_path / "student.int8.onnx").graph.node]
    assert "QuantizeLinear" in kinds
    facts = onnxruntime.InferenceSession(tmp_path / "student.int8.onnx").get_modelmeta()
    assert facts.custom_metadata_map["input"] == graph.about["input"]


def test_a_net_that_a_format_cannot_express_is_one_sentence(tmp_path: Path) -> None:
    graph = graph_of("series")
    graph.module.student.net.trunk.forward = lambda x: torch.from_numpy(x.numpy()).mean(2)
    with pytest.raises(UserError, match="this net cannot be written as torch_export"):
        write_format("torch_export", graph, tmp_path, None)


def test_a_format_is_known_and_its_packages_are_installed(monkeypatch) -> None:
    assert check_formats(["int8", "onnx", "int8"]) == ["onnx", "int8"]
    with pytest.raises(UserError, match="unknown format 'onx': did you mean onnx"):
        check_formats(["onx"])
    real = importlib.util.find_spec
    monkeypatch.setattr(formats, "find_spec", lambda n: None if n == "openvino" else real(n))
    with pytest.raises(UserError, match=r'needs openvino: pip install "kd_lightning\[export,openv'):
        check_formats(["onnx", "openvino"])


def test_torchscript_and_torch_export_files_have_no_path_of_this_machine(tmp_path: Path) -> None:
    for name in ("torchscript", "torch_export"):
        write_format(name, graph_of("images"), tmp_path, None)
        with zipfile.ZipFile(tmp_path / format_module(name).FILES[0]) as file:
            content = b"".join(file.read(part) for part in file.namelist())
        assert os.fsencode(Path(kd_lightning.__file__).parent) not in content
