"""The model card has the numbers of the records, and nothing that they do not have."""

import copy

import pytest
import yaml
from nets_to_export import graph_of

from kd_lightning.base.tables import Table
from kd_lightning.exports.card import command_of, model_card, plain, resizing, with_interval
from kd_lightning.records.sample_counts import sample_counts

TABLE = Table("export", "Exported files", ["", "size"], [["onnx", "1 kB"]], ["A note."])
FILES = {"onnx": ("student.onnx",)}
INFO = {
    "key": "a",
    "title": "a · resnet(8)",
    "run": "kd on flowers",
    "architecture": {"constructor": "my_networks.small", "arguments": {}},
    "class_names": [f"flower {number}" for number in range(60)],
    "input": {"kind": "image", "channels": 3, "size": 16, "mean": None, "std": None,
              "resize": "crop", "crop_fraction": 0.8, "interpolation": "bilinear",
              "net_size": None},
    "parameters": 12345,
    "data": {"name": "flowers", "protocol": "val: 10%; test: a fifth (70 / 10 / 20 samples)"},
    "metrics": {"test": {"accuracy": 0.75, "nll": 0.81234, "ece": 0.0456},
                "weights": "those that were best on val",
                "protocol": "val: 10%; test: a fifth (70 / 10 / 20 samples)"},
    "method": {"name": "kd", "settings": {"temperature": 4.0}, "epochs": 5, "batch_size": 64,
               "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.003}},
    "teacher": {"title": "teacher · resnet(56)", "origin": "trained"},
    "seed": 3,
    "versions": {"kd_lightning": "0.1.0", "timm": None},
    "command": ["run.py", "method=kd", "data.root=/my flowers"],
}  # fmt: skip
RECORD = {"nets": {"teacher": {"test": {"accuracy": 0.8765}}, "a": {"agreement": 0.4321}}}


def card_of(info: dict, record: dict | None = RECORD) -> str:
    return model_card(info, record, graph_of("images"), TABLE, FILES)


def test_the_card_has_the_numbers_of_the_records() -> None:
    card = card_of(INFO)
    for text in ("12,345 parameters", "75.00% (95 %: 53.13% to 88.81%)", "| NLL | 0.812 |",
                 "| ECE | 0.046 |", "87.65%", "43.21%", "One seed (3)", "temperature 4.0",
                 "AdamW (lr 0.003)", "49: flower 49 and 10 more", "resized to 20 by the short side",
                 'python -m kd_lightning.run method=kd \'data.root=/my flowers\'',
                 'allow=["my_networks"]', "| onnx | 1 kB |", "kd_lightning 0.1.0"):  # fmt: skip
        assert text in card


def test_the_metadata_are_those_of_the_hub() -> None:
    _, head, _ = card_of(INFO).split("---\n", 2)
    facts = yaml.safe_load(head)
    assert facts["pipeline_tag"] == "image-classification"
    assert {"knowledge-distillation", "onnx"} <= set(facts["tags"])
    (result,) = facts["model-index"][0]["results"]
    assert result["dataset"]["split"] == "test"
    measured = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert measured == {"accuracy": 0.75, "nll": 0.81234, "ece": 0.0456}


def test_what_was_not_recorded_is_left_out() -> None:
    alone = card_of(INFO, None)
    assert "agreement" not in alone
    assert "75.00%" in alone
    few = {key: INFO[key] for key in ("architecture", "class_names", "input")}
    card = card_of(few, None)
    assert "Not recorded" in card
    assert "Training" not in card
    assert "None" not in card


def test_the_interval_is_wilsons() -> None:
    # (p + z^2 / 2n ± z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), p = 0.75, n = 20
    z2 = 1.959964**2
    middle, half = 0.75 + z2 / 40, (z2 * (0.75 * 0.25 / 20 + z2 / 1600)) ** 0.5
    low, high = (middle - half) / (1 + z2 / 20), (middle + half) / (1 + z2 / 20)
    assert with_interval(0.75, 20) == f"75.00% (95 %: {low:.2%} to {high:.2%})"
    assert with_interval(0.75, None) == "75.00%"
    assert sample_counts(INFO["metrics"]["protocol"]) == (70, 10, 20)


def test_images_that_could_not_be_read_are_not_counted() -> None:
    metrics = {**INFO["metrics"], "samples": 16}  # of the 20 of the protocol
    assert f"| test accuracy | {with_interval(0.75, 16)} |" in card_of({**INFO, "metrics": metrics})
    assert sample_counts("some") is None


def test_the_card_says_what_is_part_of_the_files() -> None:
    assert "Normalization and softmax are part of the files." in card_of(INFO)
    info = INFO | {"input": INFO["input"] | {"net_size": 32}}
    assert "Resizing to 32, normalization and softmax" in card_of(info)
    info["input"]["net_interpolation"] = "bicubic"
    outside = graph_of("images", "outside")
    text = model_card(info, RECORD, outside, TABLE, FILES)
    assert "From this size they are resized to 32 (bicubic, antialiased), before they are" in text


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"resize": "squash"}, "resized to that square"),
        ({"resize": "letterbox"}, "black borders"),
        ({"crop_fraction": 1.0}, "resized by the short side, then cropped"),
        ({"interpolation": "bicubic"}, "bicubic"),
        ({"exif": True}, "Photographs are turned as their EXIF tag says."),
    ],
)
def test_the_card_says_how_images_were_resized(changed: dict, text: str) -> None:
    given = copy.deepcopy(INFO["input"]) | changed
    assert text in resizing(given)


def test_settings_and_commands_are_in_words() -> None:
    inner = {"_target_": "a.b.kl_soft_loss", "_partial_": True}
    assert plain({"soft_loss": inner, "ramp": None, "t": 4.0}) == "soft_loss kl_soft_loss, t 4.0"
    assert command_of(["mine.py", "a b"]) == "mine.py 'a b'"
