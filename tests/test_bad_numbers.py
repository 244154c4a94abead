"""A number that makes no sense is refused in one sentence, before anything is built or written."""

import os
from pathlib import Path

import pytest
import torch
from helpers import TINY, compose

from benchmarks.torture.config_fuzz import RIGHT, examples
from benchmarks.torture.outcomes import Worker
from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.base.threads import use_threads
from kd_lightning.config.schema import check_configuration
from kd_lightning.models.perceptron import mlp

REFUSED = {
    "seed=12345678901234567890": "seed must be >= 0 and <= 9223372036854775807, got 123456789012",
    "seed=-1": "seed must be >= 0, got -1",
    "threads=0": "threads must be >= 1 or null, got 0",
    "teacher.cache=0": "teacher.cache must be >= 1 or null, got 0",
    "hardware.num_nodes=0": "hardware.num_nodes must be >= 1, got 0",
    "method.temperature=1e308": "method.temperature must be > 0 and <= 10000, got 1e+308",
    "method.temperature=1e-308": "method.temperature must be > 0 and >= 1e-18, got 1e-308",
    "method.temperature=nan": "method.temperature must be > 0, got nan",
    "method.soft_weight=inf": "method.soft_weight must be >= 0 and <= 1e+12, got inf",
    "method.learning_rates={a:0}": "method.learning_rates.a must be > 0, got 0",
    "optimizer.lr=1e308": "optimizer.lr must be <= 1e+12 in size, got 1e+308",
    "optimizer.weight_decay=nan": "optimizer.weight_decay must be finite, got nan",
    "optimizer.betas=[0.9,inf]": "optimizer.betas[1] must be finite, got inf",
    "teacher.optimizer.lr=inf": "teacher.optimizer.lr must be finite, got inf",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val must be >= 0 or null, got -1",
    "+trainer.val_check_interval=0": "trainer.val_check_interval must be >= 1 or in (0, 1] or ",
    "+trainer.check_val_every_n_epoch=0": "trainer.check_val_every_n_epoch must be >= 1 or null",
    "+trainer.limit_train_batches=0": "trainer.limit_train_batches must be >= 1 or in (0, 1]",
    "+trainer.limit_val_batches=1.5": "trainer.limit_val_batches must be a whole number >= 0 or",
    "trainer.max_steps=0": "trainer.max_steps must be -1 or >= 1, got 0",
    "+trainer.fast_dev_run=true": "trainer.fast_dev_run is not for runs: its record would look",
    "+teacher.trainer.fast_dev_run=1": "teacher.trainer.fast_dev_run is not for runs: ",
    "+trainer.limit_test_batches=2": "trainer.limit_test_batches is not for runs: all of test is",
    "+trainer.limit_predict_batches=2": "trainer.limit_predict_batches is not for runs: ",
    "data.num_workers=100000": "data.num_workers must be >= 0 and <= 1024, got 100000",
    "evaluation.adversarial_steps=0": "evaluation.adversarial_steps must be >= 1, got 0",
    "method.students.a.widths=[8,0]": "method.students.a.widths[1] must be >= 1, got 0",
    "method.students.a.widths=[]": "method.students.a.widths must be a list of length >= 1, each",
    "method.students.a.num_classes=0": "method.students.a.num_classes must be >= 1, got 0",
}


@pytest.mark.parametrize(("override", "sentence"), REFUSED.items())
def test_a_number_without_sense_is_refused(override: str, sentence: str) -> None:
    cfg = compose(*TINY, override)
    with pytest.raises(UserError) as caught:
        check_configuration(cfg)
    assert str(caught.value).startswith(sentence)


BUILT = {
    "hardware=[1,2]": "a choice must be a name, got hardware=[1,2]",
    "+scheduler.warmup=0.1": "scheduler.warmup exists already: write it without +",
    "optimizer=[1]": "a choice must be a name, got optimizer=[1]",
    "hardware.devices={a:1}": "hardware.devices must be a whole number or a list",
    "teacher.optimizer=[1]": "teacher.optimizer must be keys and values, got [1]",
    "teacher.scheduler=x": "teacher.scheduler must be keys and values, got x (scheduler@teacher.",
    "teacher.scheduler=null": "teacher.scheduler must be keys and values, got null",
    "+trainer.min_epochs=5": "trainer.min_epochs must be <= trainer.max_epochs=2, got 5",
    "+trainer.val_check_interval=6": "trainer.val_check_interval must be <= 5, the batches of an",
    "+trainer.val_check_interval=0.1": "trainer.val_check_interval=0.1 of 5 batches is none",
    "+teacher.trainer.limit_train_batches=1e-3": "teacher.trainer.limit_train_batches=0.001 of",
    "+trainer.min_steps=5 trainer.max_steps=3": "trainer.min_steps must be <= trainer.max_steps=3",
}


@pytest.mark.parametrize(("overrides", "sentence"), BUILT.items())
def test_settings_that_contradict_each_other_are_refused(
    overrides: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        distill(*TINY, f"outputs={tmp_path / 'outputs'}", *overrides.split())
    assert str(caught.value).startswith(sentence)
    assert not (tmp_path / "outputs").exists()


def test_more_threads_than_a_machine_can_start_are_refused() -> None:
    most = max(256, 4 * os.cpu_count())
    with pytest.raises(UserError, match=f"^threads must be at most {most} on this machine, got "):
        use_threads(100_000)


def test_a_given_teacher_of_one_class_is_refused(tmp_path: Path) -> None:
    net = mlp(num_inputs=768, widths=[8], num_classes=1, in_chans=3)
    torch.save(net.state_dict(), tmp_path / "one.pt")
    more = ("method.teacher.widths=[8]", f"outputs={tmp_path / 'outputs'}")
    for override in ("method.teacher.num_classes=1", "method.num_classes=1", "data.num_classes=1"):
        with pytest.raises(UserError, match="classes"):
            distill(*TINY, f"teacher.source={tmp_path / 'one.pt'}", *more, override)


@pytest.mark.slow
def test_mistakes_in_any_key_end_in_one_sentence_and_write_nothing() -> None:
    worker = Worker()  # a process with a limit of memory: some sizes are absurd
    try:
        outcomes = {words: worker.outcome(words, False) for words in examples(30, 1)}
        written = list(Path(worker.folder.name).iterdir())
    finally:
        worker.close()
    assert {words: one for words, one in outcomes.items() if one.kind not in RIGHT} == {}
    assert {one.kind for one in outcomes.values()} == set(RIGHT)
    assert written == []
