"""What a method cannot be combined with is refused in one sentence."""

from pathlib import Path

import pytest
from helpers import compose
from methods.test_contract import ALL, built

from kd_lightning.base.errors import UserError
from kd_lightning.running.support import OPTIONS, check_support, unsupported_by

REFUSED = {
    "everything mixing@data.mixing=mixup": r"everything does not support data.mixing: the rot.*"
    r"\(set data.mixing=null\)",
    "everything teacher.cache=2": r"does not support teacher.cache=2: it needs layers",
    "alternating hardware.compile=true": r"hardware.compile=true: it has several optimizers",
    "alternating trainer.accumulate_grad_batches=2": r"_batches=2: it has several .*=1\)",
    "alternating trainer.gradient_clip_val=0.5": r"trainer.gradient_clip_val=0.5: it has several",
    "alternating trainer.max_steps=10": r"trainer.max_steps=10: .*\(set trainer.max_steps=-1\)",
    "branched hardware.compile=true": r"hardware.compile=true: its steps differ",
    "alternating teacher.cache=2": r"not support teacher.cache=2: its teacher learns",
}


@pytest.mark.parametrize(("words", "sentence"), REFUSED.items())
def test_what_is_not_supported_names_the_reason_and_the_key(words: str, sentence: str) -> None:
    method, *more = words.split()
    with pytest.raises(UserError, match=sentence):
        built(method, *more)


@pytest.mark.parametrize("method", ALL)
def test_as_it_is_shipped_every_method_is_supported(method: str) -> None:
    learner, _, cfg = built(method)
    check_support(cfg, learner)
    assert unsupported_by(learner).keys() <= OPTIONS.keys()


def test_options_are_keys_of_the_configuration() -> None:
    cfg = compose("method=kd", "hardware=cpu")  # where auto does not stand
    for key, off in OPTIONS.values():
        section, _, name = key.rpartition(".")
        value = cfg[section].get(name)
        assert value is None or str(value).lower() == off


def test_a_run_without_a_teacher_leaves_the_options_of_one_alone() -> None:
    built("branched", "teacher.cache=2")  # as the run that trains a teacher for a cached one


def test_a_teacher_that_never_changes_must_be_trained(tmp_path: Path) -> None:
    from kd_lightning import distill

    with pytest.raises(UserError, match="untrained is for methods whose teacher learns too"):
        distill("method=kd", "data=synthetic", "teacher.source=untrained", f"outputs={tmp_path}")
    assert list(tmp_path.iterdir()) == []
