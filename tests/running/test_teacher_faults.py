"""The sentence about a teacher that is wrong names what is wrong and what to change."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import ridge_net, with_order
from hydra.utils import instantiate
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier
from kd_lightning.running.teacher_check import check_on_val
from kd_lightning.teachers.sources import Teacher, get_teacher


def sentence(check: Callable, net: Classifier) -> str:
    with pytest.raises(UserError) as caught:
        check(net)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert text.endswith(" (teacher.check=warn trains all the same)")
    return text


def untrained(net: Classifier) -> Classifier:
    torch.manual_seed(0)
    torch.nn.init.normal_(net.head.weight)
    return net


def test_another_order_of_classes_is_given_as_an_override(check: Callable) -> None:
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    text = sentence(check, with_order(ridge_net(check.data), order))
    shown = ",".join(map(str, order.tolist()))
    assert "with its classes in another order: add teacher.class_order=[" + shown + "]" in text


EXTRA = ["other", "other"]  # classes that the data do not have


@pytest.mark.parametrize(
    ("names", "extra"),
    [(None, []), ("in the file", []), ("given", []), ("in the file", EXTRA), ("given", EXTRA)],
)
def test_the_advised_order_repairs_the_teacher(
    names: str | None, extra: list[str], make_check: Callable, tmp_path: Path
) -> None:
    check = make_check({"outputs": str(tmp_path / "outputs")})
    classes = [*check.data.class_names, *extra]
    right = torch.randperm(len(classes), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    config = {"_target_": "kd_lightning.models.perceptron.mlp", "num_inputs": 64, "widths": [256],
              "num_classes": len(classes), "in_chans": 1}  # fmt: skip
    net = ridge_net(check.data, trunk=instantiate(config).trunk)
    state = net.state_dict()
    for name, value in (("head.weight", 0.0), ("head.bias", -9.0)):
        rows = state[name].new_full((len(extra), *state[name].shape[1:]), value)
        state[name] = torch.cat([state[name], rows])[right]
    shifted = dict(zip(check.data.class_names, torch.arange(10).roll(3).tolist(), strict=True))
    order = [str(shifted.get(classes[i], classes[i])) for i in right]
    told = {"classes": order} if names == "in the file" else {}
    torch.save({"model": state, **told}, tmp_path / "net.pt")

    cfg = check.cfg
    cfg.method.teacher = {**config, "num_classes": 10}
    cfg.teacher.update(source=str(tmp_path / "net.pt"))
    cfg.teacher.class_order = order if names == "given" else None

    def accuracy() -> float:
        teacher = get_teacher(cfg, check.data, train=pytest.fail, say=check.said.append)
        return check_on_val(cfg, check.data, teacher, check.said.append)["val"]["accuracy"]

    with pytest.raises(UserError, match="with its classes in another order: add ") as caught:
        accuracy()
    override = str(caught.value).partition("order: add ")[2].partition(", after a look")[0]
    cfg.merge_with_dotlist([override])
    assert accuracy() > 0.9


def test_an_order_that_no_override_changes_is_explained(make_check: Callable) -> None:
    check = make_check({"teacher.source": "pretrained"})
    wrong = with_order(ridge_net(check.data), torch.arange(10).roll(1))
    shown = "teacher.source=<file> teacher.class_order=[9,0,1,2,3,4,5,6,7,8] (teacher.check=warn"
    assert f"give its weights as a file, with {shown}" in sentence(check, wrong)
    # of a file with all outputs of ImageNet
    teacher = Teacher(wrong, "here", "net")
    with pytest.raises(UserError, match="look at the names of the data's classes, by which its"):
        check_on_val(make_check().cfg, check.data, teacher, check.said.append)


def test_an_order_of_many_classes_is_written_to_a_file(
    make_check: Callable, tmp_path: Path
) -> None:
    synthetic = {"_target_": "kd_lightning.data.synthetic.Synthetic", "kind": "image",
                 "num_classes": 40, "channels": 1, "size": 8, "num_train": 4000, "num_test": 50,
                 "noise": 0.3, "batch_size": 50, "val_fraction": 0.2}  # fmt: skip
    check = make_check({"outputs": str(tmp_path / "outputs")}, synthetic)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    text = sentence(check, with_order(ridge_net(check.data), order))
    (path,) = (tmp_path / "outputs").glob("*.json")
    assert f"add teacher.class_order={path}, after a look at the class names" in text
    assert json.loads(path.read_text()) == order.tolist()


def test_a_softmax_at_the_end_is_found(check: Callable, make_check: Callable) -> None:
    net = ridge_net(check.data)
    check(net)
    logits = net.head
    net.head = nn.Sequential(logits, nn.Softmax(-1))
    assert "the teacher's outputs are probabilities" in sentence(check, net)
    warned = make_check({"teacher.check": "warn"})
    warned(net)
    assert "leave out the softmax at its end" in warned.said[-1]
    net.head = nn.Sequential(logits, nn.LogSoftmax(-1))  # gives the same probabilities as logits
    check(net)


def test_near_chance_the_likely_causes_are_named_with_their_keys(check: Callable) -> None:
    text = sentence(check, untrained(ridge_net(check.data)))
    assert "not significantly above the share of the most frequent class, 10." in text
    assert "look at its normalization (method.teacher.mean, method.teacher.std)" in text
    assert text.partition(" or ")[2].startswith("weights that were not loaded (teacher.source)")


def test_a_key_that_the_run_has_is_named(make_check: Callable) -> None:
    check = make_check({"method.teacher.input_size": 32, "teacher.class_order": None})
    text = sentence(check, untrained(ridge_net(check.data)))
    assert "the size of its images (method.teacher.input_size), " in text
    assert "the order of its classes (teacher.class_order) or weights" in text


def test_a_teacher_that_the_run_has_trained_is_not_used_in_other_ways(make_check: Callable) -> None:
    check = make_check({"teacher.source": "train"})
    text = sentence(check, with_order(ridge_net(check.data), torch.arange(10).roll(1)))
    assert "in another order" not in text
    assert text.endswith(
        ": look at too little training (teacher.trainer.max_epochs, teacher.optimizer.lr) "
        "(teacher.check=warn trains all the same)"
    )


def test_a_teacher_of_another_run_may_be_wrong_itself(make_check: Callable, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    check = make_check({"teacher.source": str(tmp_path)})
    text = sentence(check, untrained(ridge_net(check.data)))
    assert ": look at that run, or other data than it had (teacher.source, data)" in text


def test_pretrained_weights_are_used_in_other_ways_only_if_they_are_suspicious(
    make_check: Callable,
) -> None:
    order = torch.tensor([1, 0, *range(2, 10)])
    check = make_check({"teacher.source": "pretrained"})
    assert check(with_order(ridge_net(check.data), order))["val"]["accuracy"] < 0.85
    check = make_check({"teacher.source": "pretrained", "teacher.expect_accuracy": 0.9})
    assert "in another order" in sentence(check, with_order(ridge_net(check.data), order))
