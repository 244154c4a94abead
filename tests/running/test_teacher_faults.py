"""The sentence about a teacher that is wrong names what is wrong and what to change."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import ridge_net, with_order

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier


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


@pytest.mark.parametrize("kind", [int, str])
def test_an_order_is_that_of_the_outputs_in_the_file(kind: type, make_check: Callable) -> None:
    # the run has given the outputs an order already, and it is the wrong one
    right = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    given = torch.randperm(10, generator=torch.Generator().manual_seed(2))
    check = make_check({"teacher.class_order": [kind(one) for one in given.tolist()]})
    of_file = with_order(ridge_net(check.data), right)
    text = sentence(check, with_order(of_file, given.argsort()))
    assert f"add teacher.class_order=[{','.join(map(str, right.tolist()))}]" in text


def test_an_order_of_many_classes_is_written_to_a_file(
    make_check: Callable, tmp_path: Path
) -> None:
    synthetic = {"_target_": "kd_lightning.data.synthetic.Synthetic", "kind": "image",
                 "num_classes": 40, "channels": 1, "size": 8, "num_train": 4000, "num_test": 50,
                 "noise": 0.3, "batch_size": 50, "val_fraction": 0.2}  # fmt: skip
    check = make_check({"outputs": str(tmp_path / "outputs")}, synthetic)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    text = sentence(check, with_order(ridge_net(check.data), order))
    (path,) = (tmp_path / "outputs").iterdir()
    assert f"add teacher.class_order={path}, after a look at the class names" in text
    assert json.loads(path.read_text()) == order.tolist()


def test_near_chance_the_likely_causes_are_named_with_their_keys(check: Callable) -> None:
    text = sentence(check, untrained(ridge_net(check.data)))
    assert "not significantly above the share of the most frequent class, 10." in text
    assert "look at its normalization (method.teacher.mean, method.teacher.std)" in text
    assert text.partition(" or ")[2].startswith("weights that were not loaded (teacher.source)")
    assert "input_size" not in text  # this net has no such key


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
