import functools
import pickle
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.distributions import Distribution
from torchvision.transforms import v2

from kd_lightning.base.errors import UserError
from kd_lightning.data.classification import (
    ClassificationData,
    Parts,
    mix,
)
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.checks import check_samples, fingerprint
from kd_lightning.data.loading.loaders import ResidentLoader
from kd_lightning.data.loading.resident import is_to_be_held
from kd_lightning.data.loading.splits import split

CLASSES = ["a", "b", "c"]


def made(count, *size, groups=None):
    numbers = torch.Generator().manual_seed(count)
    return Samples(
        torch.rand(count, *size, generator=numbers),
        torch.arange(count) % 3,
        None if groups is None else torch.arange(count) // (count // groups),
    )


class Toy(ClassificationData):
    """60 + 12 samples of any shape, with subjects if asked."""

    def __init__(self, *, size=(2, 4, 4), groups=None, val=None, **common):
        super().__init__(**{"batch_size": 6, **common})
        train, test = made(60, *size, groups=groups), made(12, *size)
        self.given = Parts(train=train, test=test, class_names=CLASSES, val=val)

    def load(self):
        return self.given


def ready(**kwargs):
    data = Toy(**kwargs)
    data.setup()
    return data


def rows(samples):
    """The samples as a set, to compare parts by content."""
    return {tuple(row) for row in samples.x.flatten(1).tolist()}


def test_the_facts_are_those_of_train():
    data = ready()
    x = data.parts["train"].x
    assert (data.num_classes, data.class_names) == (3, CLASSES)
    assert (data.channels, data.size, data.imagenet_rows) == (2, 4, None)
    torch.testing.assert_close(data.mean, [x[:, 0].mean().item(), x[:, 1].mean().item()])
    torch.testing.assert_close(data.std, [x[:, 0].std().item(), x[:, 1].std().item()])


def test_bytes_are_measured_as_fractions_of_255():
    data = Toy()
    x = (torch.arange(60) % 2 * 255).to(torch.uint8).view(60, 1, 1, 1).expand(60, 1, 4, 4)
    data.given = replace(data.given, train=Samples(x, torch.arange(60) % 3))
    data.setup()
    assert data.mean == pytest.approx([0.5], abs=0.02)
    assert data.std == pytest.approx([0.5], abs=0.02)


def test_parts_are_disjoint_and_lose_nothing():
    data = ready(val_fraction=0.2)
    train, val, test = (rows(data.parts[part]) for part in ("train", "val", "test"))
    assert not train & val
    assert not train & test
    assert not val & test
    assert train | val == rows(data.given.train)
    assert test == rows(data.given.test)


def test_the_split_is_stratified():
    data = ready(val_fraction=0.2)
    assert torch.bincount(data.parts["val"].y).tolist() == [4, 4, 4]


def test_the_split_follows_from_split_seed_and_not_from_seed():
    def val(**seeds):
        return rows(ready(**seeds).parts["val"])

    assert val(seed=0) == val(seed=1)
    assert val(split_seed=0) != val(split_seed=1)


def test_subjects_are_never_shared_between_train_and_val():
    data = ready(groups=10, val_fraction=0.3)
    train, val = (set(data.parts[part].groups.tolist()) for part in ("train", "val"))
    assert not train & val
    assert len(val) == 3
    assert "by subject" in data.protocol


def test_every_class_that_can_gives_to_val_and_keeps_one():
    y = torch.tensor([0, 1, 1, *[2] * 50])
    for fraction in (0.01, 0.99):
        kept, held = split(y, None, fraction, seed=0)
        assert sorted(kept.tolist() + held.tolist()) == list(range(53))
        assert set(y[kept].tolist()) == {0, 1, 2}
        assert set(y[held].tolist()) == {1, 2}


def test_a_split_by_subject_always_leaves_one_to_train_on():
    kept, held = split(torch.zeros(4), torch.tensor([0, 0, 1, 1]), 0.99, seed=0)
    assert len(kept) == len(held) == 2


def test_a_split_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="two subjects"):
        split(torch.zeros(4), torch.zeros(4), 0.1, seed=0)
    with pytest.raises(UserError, match="no class has two samples"):
        split(torch.arange(4), None, 0.1, seed=0)


def test_a_val_part_of_the_data_set_s_own_is_taken():
    val = made(9, 2, 4, 4)
    data = ready(val=val)
    assert data.parts["val"] is val
    assert rows(data.parts["train"]) == rows(data.given.train)
    assert "val: the data set's own" in data.protocol


def test_without_val_the_last_epoch_is_the_result():
    data = ready(val_fraction=0)
    assert data.parts["val"] is None
    assert data.val_dataloader() == []
    assert len(data.parts["train"]) == 60
    assert "val: none, last epoch" in data.protocol
    with pytest.raises(UserError, match="val_fraction > 0"):
        data.loader("val")


def test_the_protocol_counts_the_samples():
    assert "(48 / 12 / 12 samples)" in ready(val_fraction=0.2).protocol


def test_setting_up_twice_is_harmless():
    data = ready()
    before = data.fingerprint, data.parts["train"]
    data.setup("fit")
    assert (data.fingerprint, data.parts["train"]) == before


def test_a_batch_larger_than_train_is_refused():
    assert len(ready(batch_size=54).loader("train")) == 1
    with pytest.raises(UserError, match=r"batch_size=55 is larger .* 54 samples"):
        ready(batch_size=55)


def test_a_batch_divides_over_the_ranks():
    with pytest.raises(UserError, match="batch_size=6 is global and must divide over 4 devices"):
        ready().loader("train", ranks=4)
    x, _ = next(iter(ready().loader("train", rank=1, ranks=3)))
    assert len(x) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [("batch_size", 0), ("val_fraction", 1.0), ("val_fraction", -0.1), ("num_workers", -1)],
)
def test_an_impossible_value_is_refused_by_its_key(key, value):
    with pytest.raises(UserError, match=rf"data\.{key} must be .*, got {value}"):
        Toy(**{key: value})


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 3], "labels must be 0..2, the train part has 0..3"),
        ([-1, 1, 2], "labels must be 0..2, the train part has -1..2"),
        ([0, 2, 2], "1 of 3 have none: b"),
        ([], "the train part is empty"),
    ],
)
def test_wrong_labels_are_refused(y, message):
    samples = Samples(torch.zeros(len(y), 1, 4), torch.tensor(y, dtype=torch.int64))
    with pytest.raises(UserError, match=message):
        check_samples(samples, CLASSES, "train")


def test_a_class_may_be_absent_from_test_but_not_from_train():
    samples = Samples(torch.zeros(2, 1, 4), torch.tensor([0, 2]))
    check_samples(samples, CLASSES, "test")
    with pytest.raises(UserError):
        check_samples(samples, CLASSES, "train")


def test_one_class_is_no_classification():
    with pytest.raises(UserError, match="two classes or more"):
        check_samples(Samples(torch.zeros(1, 1, 4), torch.zeros(1).long()), ["a"], "train")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["train", "test"])
def test_values_that_are_no_numbers_are_refused(value, part):
    data = Toy(size=(2, 5))
    getattr(data.given, part).x[7, 1, 3] = value
    with pytest.raises(UserError, match=rf"{part} part has NaN .* in 1 samples, .* number 7"):
        data.setup()


def test_the_fingerprint_is_that_of_the_content():
    train, test = made(6, 1, 4), made(3, 1, 4)
    reference = fingerprint(train, None, test)
    assert fingerprint(replace(train, x=train.x.clone()), None, test) == reference
    changed = train.x.clone()
    changed[5, 0, 3] += 1e-6
    others = [
        fingerprint(replace(train, x=changed), None, test),
        fingerprint(replace(train, y=train.y.flip(0)), None, test),
        fingerprint(replace(train, x=train.x.view(6, 4, 1)), None, test),
        fingerprint(train.subset(torch.arange(5)), train.subset(torch.tensor([5])), test),
        fingerprint(train, None, replace(test, x=test.x + 1)),
    ]
    assert len({reference, *others}) == 6


def test_the_fingerprint_of_files_is_of_names_and_sizes_and_not_of_their_place(tmp_path):
    def tree(root, name="0.jpg", content=b"abc"):
        (root / "cat").mkdir(parents=True)
        (root / "cat" / name).write_bytes(content)
        return fingerprint(Samples([root / "cat" / name], torch.zeros(1)))

    reference = tree(tmp_path / "here")
    assert tree(tmp_path / "there") == reference
    assert tree(tmp_path / "longer", content=b"abcd") != reference
    assert tree(tmp_path / "renamed", name="1.jpg") != reference


@pytest.mark.parametrize("size", [(2, 4, 4), (2, 9)])
def test_mixing_gives_label_distributions(size):
    data = ready(size=size, mixing=functools.partial(v2.MixUp, alpha=1.0))
    x, y = next(iter(data.loader("train")))
    assert x.shape == (6, *size)
    assert y.shape == (6, 3)
    torch.testing.assert_close(y.sum(1), torch.ones(6))
    assert ((y > 0) & (y < 1)).any()
    for part in ("val", "test"):
        assert next(iter(data.loader(part)))[1].dtype == torch.int64


def test_a_mixed_series_is_the_blend_of_two():
    x, y = torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]]]), torch.arange(2)
    x, y = mix(v2.MixUp(num_classes=2), x, y)
    assert x.shape == (2, 1, 2)
    torch.testing.assert_close(x, y[:, 1].view(2, 1, 1).expand(2, 1, 2))


def test_cutmix_suits_images():
    x, y = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)]), torch.arange(2)
    torch.manual_seed(0)
    x, y = mix(v2.CutMix(num_classes=2), x, y)
    torch.testing.assert_close(x.mean((1, 2, 3)), y[:, 1])  # labels are weighed by area


def test_cutmix_of_series_is_refused():
    data = ready(size=(2, 9), mixing=v2.CutMix)
    with pytest.raises(UserError, match="MixUp for series"):
        next(iter(data.loader("train")))


def test_augmentation_is_for_train_alone():
    data = ready(augmentation=torch.neg)
    for part, sign in (("train", -1), ("val", 1), ("test", 1)):
        assert torch.cat([x for x, _ in data.loader(part)]).sum().sign() == sign


def test_an_augmentation_that_changes_the_size_is_refused():
    data = Toy(augmentation=v2.RandomCrop(3))
    for _ in range(2):  # a failed setup leaves nothing half done
        with pytest.raises(UserError, match=r"2 channels of size 4, it gives 2 of 3 x 3"):
            data.setup()
    ready(size=(2, 9), augmentation=torch.neg)


def test_an_augmentation_that_cannot_be_applied_is_refused():
    with pytest.raises(UserError, match=r"does not suit .* \(2, 4, 4\): .*data\.augmentation"):
        ready(augmentation=v2.RandomCrop(5))


def test_looking_at_the_augmentation_draws_no_random_numbers():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    ready(augmentation=v2.RandomCrop(4, padding=1))
    assert torch.equal(torch.rand(3), expected)


def test_what_a_worker_gets_can_be_pickled():
    data = ready(mixing=functools.partial(v2.MixUp, alpha=1.0), augmentation=v2.RandomCrop(4))
    data.callback = lambda: None  # as a Trainer, it cannot be sent
    for part in ("train", "val"):
        assert len(pickle.loads(pickle.dumps(data.loader(part).dataset))) == len(data.parts[part])


class Recorder(LightningModule):
    """Trains nothing, and writes down the labels it sees."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.seen = []

    def training_step(self, batch):
        self.seen.append((self.current_epoch, batch[1].tolist()))

    def configure_optimizers(self):
        return None


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*configure_optimizers. returned .None.")
@pytest.mark.filterwarnings("ignore:You defined a .validation_step|.*no .validation_step")
def test_lightning_turns_to_the_next_order_every_epoch():
    data, recorder = Toy(batch_size=18), Recorder()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(recorder, datamodule=data)
    loader = ready(batch_size=18).loader("train")
    for epoch in range(2):
        loader.batch_sampler.sampler.set_epoch(epoch)
        expected = [y.tolist() for _, y in loader]
        assert [y for at, y in recorder.seen if at == epoch] == expected
    assert recorder.seen[0][1] != recorder.seen[3][1]


CPU = torch.device("cpu")


def test_data_in_memory_are_held_where_asked_and_by_themselves_where_they_fit(monkeypatch):
    def holds(**kwargs):
        return isinstance(ready(**kwargs).loader("train", device=CPU), ResidentLoader)

    assert holds(resident=True)
    assert holds(resident=True, num_workers=1)
    assert holds()
    assert not holds(resident=False)
    assert not holds(num_workers=1)  # they were asked for
    assert not holds(augmentation=v2.RandomHorizontalFlip())  # of one sample at a time
    assert not isinstance(ready(resident=True).loader("test"), ResidentLoader)  # no device is named


def test_on_a_gpu_is_held_what_leaves_room(monkeypatch):
    gpu, size = torch.device("cuda"), ready().parts["train"].x.nbytes

    def holds(resident, *, free, **kwargs):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
        samples = ready(**kwargs)._sample_set("train")
        return is_to_be_held(samples, "train", gpu, resident, num_workers=0)

    assert holds("auto", free=4 * size + 1)
    assert not holds("auto", free=4 * size)
    assert not holds(resident=False, free=10 * size)
    assert not holds("auto", free=10 * size, augmentation=v2.RandomHorizontalFlip())
    assert holds(resident=True, free=size)
    with pytest.raises(UserError, match=r"data\.resident=true would hold .* of train on a device"):
        holds(resident=True, free=size - 1)


def test_a_part_is_copied_to_the_device_once(monkeypatch):
    data, copies = ready(resident=True), []
    copy = Samples.to
    monkeypatch.setattr(Samples, "to", lambda *asked: copies.append(asked[0].x) or copy(*asked))
    first, second = (data.loader("train", device=torch.device("meta")) for _ in range(2))
    assert sum(not x.is_meta for x in copies) == 1
    assert first.dataset.samples.x is second.dataset.samples.x
    assert first.dataset.samples.x.is_meta
    assert not data.parts["train"].x.is_meta


def test_what_cannot_be_held_is_refused():
    with pytest.raises(UserError, match=r"data\.resident=true holds data that are in memory"):
        ready(resident=True, augmentation=v2.RandomHorizontalFlip()).loader("train", device=CPU)


def test_a_mixing_is_checked_though_something_else_has_turned_checks_off(monkeypatch):
    monkeypatch.setattr(Distribution, "_validate_args", False)  # as torch.compile does
    with pytest.raises(UserError, match="the mixing refuses its settings"):
        ready(mixing=functools.partial(v2.MixUp, alpha=-1.0))
    assert not Distribution._validate_args
