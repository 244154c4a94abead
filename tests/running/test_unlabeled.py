"""``data.unlabeled`` from the configuration to the record: what it names, who uses it, a resume."""

import json
from pathlib import Path

import pytest
import torch
from helpers import TINY, compose
from methods.test_contract import StopAfter, assert_equal, built, state_of, trainer
from omegaconf import OmegaConf

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import write_kept
from kd_lightning.config.command_line import as_user_errors
from kd_lightning.running.build import build_data
from kd_lightning.teachers.own_run import teacher_run
from kd_lightning.teachers.store import shape_of

SMALL = ("data=synthetic", "data.num_train=64", "data.num_test=16", "data.batch_size=16")
OTHERS = "data.unlabeled_options={num_train:40,data_seed:7,size:9,channels:1,num_classes:4}"
USES = ("data.unlabeled=synthetic", OTHERS)


def data_of(*words: str):
    return build_data(compose(*SMALL, *words))


def test_another_data_set_takes_the_form_of_the_task() -> None:
    data = data_of(*USES, "data.unlabeled_ratio=2")
    batches = list(data.train_loader())
    assert len(batches) == len(data.loader("train"))
    for x, y in batches:
        assert x.shape == (16 + 32, 3, 16, 16)
        assert y.shape == (16,)
    assert data.notes[-1] == (
        "Unlabeled: 40 samples of synthetic, 32 in each step beside 16 labeled ones, as 3 x 16 x "
        "16; their labels are not used."
    )


def test_a_folder_of_images_needs_no_classes(tmp_path: Path, write_tree) -> None:
    write_tree(tmp_path, {"photos/a": 9, "photos/b": 8})
    data = data_of(f"data.unlabeled={tmp_path / 'photos'}")
    ((x, y), *_) = data.train_loader()
    assert x.shape == (32, 3, 16, 16)
    assert y.shape == (16,)
    assert len(data.unlabeled_samples.samples) == 17


@pytest.mark.filterwarnings("default::UserWarning")  # that a file is left out
def test_files_of_a_folder_that_cannot_be_read_are_left_out(tmp_path: Path, write_tree) -> None:
    write_tree(tmp_path, {"photos/a": 19})
    (tmp_path / "photos" / "a" / "0.png").write_bytes(b"no image")  # the first one
    data = data_of(f"data.unlabeled={tmp_path / 'photos'}")
    rows = [len(x) - len(y) for x, y in data.train_loader()]
    assert 15 in rows
    assert set(rows) <= {15, 16}


def test_val_and_test_of_the_same_data_set_are_left_out() -> None:
    options = "data.unlabeled_options={num_train:64,num_test:16}"
    data = data_of("data.unlabeled=synthetic", options)
    held_out = len(data.parts["val"])
    assert len(data.unlabeled_samples.samples) == 64 - held_out
    assert f"{held_out} that are in val or test too are left out" in data.notes[-1]
    data = data_of("data.unlabeled=synthetic", options, "data.on_leak=ignore")
    assert len(data.unlabeled_samples.samples) == 64 - held_out  # on_leak is about test samples


def test_series_get_series() -> None:
    kind = ["data.kind=series", "data.size=40", "data.channels=2"]
    options = "data.unlabeled_options={kind:series,size:40,channels:2,data_seed:3}"
    ((x, _), *_) = data_of(*kind, "data.unlabeled=synthetic", options).train_loader()
    assert x.shape == (32, 2, 40)
    with pytest.raises(UserError, match=r"must be series of shape \(2, 40\).* images of"):
        data_of(*kind, "data.unlabeled=synthetic")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("data.unlabeled=digit", r"unknown data set or folder 'digit': did you mean digits"),
        ("data.unlabeled=/no/such", r"there is no folder /no/such \(data.unlabeled=…"),
        ("data.unlabeled=cifar100", r"cifar100: say which .*\(data.unlabeled_options.root=…"),
        (f"{' '.join(USES)} data.unlabeled_ratio=3", r"gives 48 .*, expected 1 to 40"),
        ("data.unlabeled=digits data.unlabeled_ratio=0", r"unlabeled_ratio must be > 0, got 0"),
        ("data.unlabeled=digits data.unlabeled_options={rot:3}", r"\(data.unlabeled_options.rot=…"),
        ("data.unlabeled=synthetic data.unlabeled_options={size:a}", r"must be a whole number"),
        (
            "data.unlabeled=synthetic data.unlabeled_options={size:1}",
            r"unlabeled_options.size must",
        ),
        ("data.unlabeled_options={size:8}", r"has no effect without data.unlabeled"),
        ("data.unlabeled_ratio=2", r"unlabeled_ratio has no effect without data.unlabeled"),
        (f"data.unlabeled={Path(__file__).parent}", r"expected images \(.jpg"),
    ],
)
def test_a_wrong_value_is_one_sentence(words: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence), as_user_errors(()):
        data_of(*words.split())


def test_the_unlabeled_samples_of_a_step_divide_over_the_devices() -> None:
    data = data_of(*USES, "data.unlabeled_ratio=0.1875")
    assert len(data.train_loader()) > 0
    with pytest.raises(UserError, match=r"gives 3 unlabeled samples a step, .* over 2 devices"):
        data.train_loader(rank=0, ranks=2)


REFUSED = {
    "supervised": r"supervised does not support data.unlabeled=synthetic: its losses need the label"
    r" .*\(set data.unlabeled=null\)",
    "dual_student": r"its losses need the label",
    "kd soft_loss@method.soft_loss=dkd": r"this soft loss needs the label of every sample",
    "kd method.soft_weight=0": r"soft_weight=0 learns nothing from samples without labels",
}


@pytest.mark.parametrize(("words", "sentence"), REFUSED.items())
def test_who_cannot_use_it_says_so(words: str, sentence: str) -> None:
    method, *more = words.split()
    with pytest.raises(UserError, match=sentence):
        built(method, *more, *USES)


@pytest.mark.parametrize("method", ["kd", "semantic_distillation"])
def test_a_run_that_was_stopped_ends_with_the_same_bits(method: str, tmp_path: Path) -> None:
    whole, data, _ = built(method, *USES)
    run = trainer(tmp_path)
    run.fit(whole, datamodule=data)
    learner, data, _ = built(method, *USES)
    run = trainer(tmp_path, callbacks=[StopAfter()])
    run.fit(learner, datamodule=data)
    run.save_checkpoint(tmp_path / "last.ckpt")
    again, data, _ = built(method, *USES)
    trainer(tmp_path).fit(
        again, datamodule=data, ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    assert_equal(state_of(again), state_of(whole))
    without, data, _ = built(method)
    trainer(tmp_path).fit(without, datamodule=data)
    assert any(
        not torch.equal(v, state_of(whole.students)[n])
        for n, v in state_of(without.students).items()
    )


def test_the_record_says_which_samples_and_the_teacher_does_not_see_them(
    tmp_path: Path, store: Path
) -> None:
    words = ["method=kd", *TINY, *USES, f"teacher.store={store}", f"run_dir={tmp_path}/run"]
    with pytest.raises(UserError, match=r"cache holds outputs for labeled samples alone"):
        distill(*words, "teacher.cache=1", f"outputs={tmp_path}")
    result = distill(*words, f"outputs={tmp_path}")
    environment = json.loads((result.directory / "environment.json").read_text())
    found = environment["unlabeled"]
    assert (found["name"], found["samples"], found["in_a_step"]) == ("synthetic", 40, 16)
    assert environment["data"]["notes"][-1].startswith("Unlabeled: 40 samples of synthetic")
    cfg = OmegaConf.load(result.directory / "config.yaml")
    assert teacher_run(cfg).data.unlabeled is None
    plain = compose("method=kd", *TINY, f"teacher.store={store}")
    plain.task = cfg.task
    assert shape_of(teacher_run(plain)) == shape_of(teacher_run(cfg))
    environment["unlabeled"]["fingerprint"] = "0"
    write_kept(result.directory, {"environment.json": json.dumps(environment)})
    with pytest.raises(UserError, match=r"the content of data.unlabeled changed after"):
        distill(f"resume={result.directory}", "trainer.max_epochs=3")
