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
)
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.checks import check_samples, fingerprint
from kd_lightning.data.loading.loaders import ResidentLoader
from kd_lightning.data.loading.mixing import mix
from kd_lightning.data.loading.resident import should_be_resident
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
    """60 + 12 samples of any shape, with ``groups`` subjects."""

    def __init__(self, *, size=(2, 4, 4), groups=None, val=None, **common):
        super().__init__(**{"batch_size": 6, **common})
        train, test = made(60, *size, groups=groups), made(12, *size)
        self.loaded = Parts(train=train, test=test, class_names=CLASSES, val=val)

    def load(self):
        return self.loaded


def ready(**kwargs):
    data = Toy(**kwargs)
    data.setup()
    return data


def rows(samples):
    """The samples as a set, to compare the content of parts."""
    return {tuple(row) for row in samples.x.flatten(1).tolist()}


def test_the_attributes_describe_train():
    data = ready()
    x = data.parts["train"].x
    assert (data.num_classes, data.class_names) == (3, CLASSES)
    assert (data.channels, data.size, data.imagenet_rows) == (2, 4, None)
    torch.testing.assert_close(data.mean, [x[:, 0].mean().item(), x[:, 1].mean().item()])
    torch.testing.assert_close(data.std, [x[:, 0].std().item(), x[:, 1].std().item()])


def test_mean_and_std_of_bytes_are_fractions_of_255():
    data = Toy()
    x = (torch.arange(60) % 2 * 255).to(torch.uint8).view(60, 1, 1, 1).expand(60, 1, 4, 4)
    data.loaded = replace(data.loaded, train=Samples(x, torch.arange(60) % 3))
    data.setup()
    assert data.mean == pytest.approx([0.5], abs=0.02)
    assert data.std == pytest.approx([0.5], abs=0.02)


def test_parts_are_disjoint_and_complete():
    data = ready(val_fraction=0.2)
    train, val, test = (rows(data.parts[part]) for part in ("train", "val", "test"))
    assert not train & val
    assert not train & test
    assert not val & test
    assert train | val == rows(data.loaded.train)
    assert test == rows(data.loaded.test)


def test_the_split_is_stratified():
    data = ready(val_fraction=0.2)
    assert torch.bincount(data.parts["val"].y).tolist() == [4, 4, 4]


def test_the_split_depends_on_split_seed_and_not_on_seed():
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


def test_every_class_with_two_samples_is_in_both_parts_of_a_split():
    y = torch.tensor([0, 1, 1, *[2] * 50])
    for fraction in (0.01, 0.99):
        kept, held = split(y, None, fraction, seed=0)
        assert sorted(kept.tolist() + held.tolist()) == list(range(53))
        assert set(y[kept].tolist()) == {0, 1, 2}
        assert set(y[held].tolist()) == {1, 2}


def test_a_split_by_subject_always_keeps_one_subject_for_train():
    kept, held = split(torch.zeros(4), torch.tensor([0, 0, 1, 1]), 0.99, seed=0)
    assert len(kept) == len(held) == 2


def test_an_impossible_split_is_refused():
    with pytest.raises(UserError, match="two subjects"):
        split(torch.zeros(4), torch.zeros(4), 0.1, seed=0)
    with pytest.raises(UserError, match="no class has two samples"):
        split(torch.arange(4), None, 0.1, seed=0)


def test_a_val_part_of_the_data_set_is_used():
    val = made(9, 2, 4, 4)
    data = ready(val=val)
    assert data.parts["val"] is val
    assert rows(data.parts["train"]) == rows(data.loaded.train)
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


def test_a_second_setup_changes_nothing():
    data = ready()
    before = data.fingerprint, data.parts["train"]
    data.setup("fit")
    assert (data.fingerprint, data.parts["train"]) == before


def test_a_batch_larger_than_train_is_refused():
    assert len(ready(batch_size=54).loader("train")) == 1
    with pytest.raises(UserError, match=r"batch_size=55 is larger .* 54 samples"):
        ready(batch_size=55)


def test_a_batch_is_divided_over_the_ranks():
    with pytest.raises(UserError, match="batch_size=6 is global and must divide over 4 devices"):
        ready().loader("train", ranks=4)
    x, _ = next(iter(ready().loader("train", rank=1, ranks=3)))
    assert len(x) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [("batch_size", 0), ("val_fraction", 1.0), ("val_fraction", -0.1), ("num_workers", -1)],
)
def test_values_out_of_range_are_refused_with_their_key(key, value):
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


def test_a_single_class_is_refused():
    with pytest.raises(UserError, match="two classes or more"):
        check_samples(Samples(torch.zeros(1, 1, 4), torch.zeros(1).long()), ["a"], "train")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["train", "test"])
def test_values_that_are_not_finite_are_refused(value, part):
    data = Toy(size=(2, 5))
    getattr(data.loaded, part).x[7, 1, 3] = value
    with pytest.raises(UserError, match=rf"{part} part has NaN .* in 1 samples, .* number 7"):
        data.setup()


def test_the_fingerprint_depends_on_the_content():
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


def test_the_fingerprint_of_files_depends_on_names_and_sizes_but_not_on_the_folder(tmp_path):
    def tree(root, name="0.jpg", content=b"abc"):
        (root / "cat").mkdir(parents=True)
        (root / "cat" / name).write_bytes(content)
        return fingerprint(Samples([root / "cat" / name], torch.zeros(1)))

    reference = tree(tmp_path / "one")
    assert tree(tmp_path / "other") == reference
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


def test_cutmix_mixes_labels_by_area():
    x, y = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)]), torch.arange(2)
    torch.manual_seed(0)
    x, y = mix(v2.CutMix(num_classes=2), x, y)
    torch.testing.assert_close(x.mean((1, 2, 3)), y[:, 1])  # labels are weighted by area


def test_cutmix_of_series_is_refused():
    data = ready(size=(2, 9), mixing=v2.CutMix)
    with pytest.raises(UserError, match="MixUp for series"):
        next(iter(data.loader("train")))


def test_only_train_is_augmented():
    data = ready(augmentation=torch.neg)
    for part, sign in (("train", -1), ("val", 1), ("test", 1)):
        assert torch.cat([x for x, _ in data.loader(part)]).sum().sign() == sign


def test_an_augmentation_that_changes_the_size_is_refused():
    data = Toy(augmentation=v2.RandomCrop(3))
    for _ in range(2):  # a failed setup can be repeated
        with pytest.raises(UserError, match=r"2 channels of size 4, it returns 2 of 3 x 3"):
            data.setup()
    ready(size=(2, 9), augmentation=torch.neg)


def test_an_augmentation_that_cannot_be_applied_is_refused():
    with pytest.raises(UserError, match=r"does not suit .* \(2, 4, 4\): .*data\.augmentation"):
        ready(augmentation=v2.RandomCrop(5))


def test_checking_the_augmentation_does_not_change_the_random_state():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    ready(augmentation=v2.RandomCrop(4, padding=1))
    assert torch.equal(torch.rand(3), expected)


def test_the_dataset_for_workers_can_be_pickled():
    data = ready(mixing=functools.partial(v2.MixUp, alpha=1.0), augmentation=v2.RandomCrop(4))
    data.callback = lambda: None  # like a Trainer, it cannot be pickled
    for part in ("train", "val"):
        assert len(pickle.loads(pickle.dumps(data.loader(part).dataset))) == len(data.parts[part])


class Recorder(LightningModule):
    """Trains nothing and records the labels of its batches."""

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
def test_lightning_sets_the_next_order_in_every_epoch():
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


def test_data_in_memory_are_resident_on_request_and_with_auto(monkeypatch):
    def is_resident(**kwargs):
        return isinstance(ready(**kwargs).loader("train", device=CPU), ResidentLoader)

    assert is_resident(resident=True)
    assert is_resident(resident=True, num_workers=1)
    assert is_resident()
    assert not is_resident(resident=False)
    assert not is_resident(num_workers=1)  # workers are requested
    assert not is_resident(augmentation=v2.RandomHorizontalFlip())  # transforms single samples
    assert not isinstance(ready(resident=True).loader("test"), ResidentLoader)  # no device is given


def test_on_a_gpu_auto_needs_a_quarter_of_the_free_memory(monkeypatch):
    gpu, size = torch.device("cuda"), ready().parts["train"].x.nbytes

    def is_resident(resident, *, free, **kwargs):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
        samples = ready(**kwargs)._sample_set("train")
        return should_be_resident(samples, "train", gpu, resident, num_workers=0)

    assert is_resident("auto", free=4 * size + 1)
    assert not is_resident("auto", free=4 * size)
    assert not is_resident(resident=False, free=10 * size)
    assert not is_resident("auto", free=10 * size, augmentation=v2.RandomHorizontalFlip())
    assert is_resident(resident=True, free=size)
    with pytest.raises(UserError, match=r"data\.resident=true would store .* of train on a device"):
        is_resident(resident=True, free=size - 1)


def test_a_part_is_copied_to_the_device_once(monkeypatch):
    data, copies = ready(resident=True), []
    copy = Samples.to
    monkeypatch.setattr(Samples, "to", lambda *args: copies.append(args[0].x) or copy(*args))
    first, second = (data.loader("train", device=torch.device("meta")) for _ in range(2))
    assert sum(not x.is_meta for x in copies) == 1
    assert first.dataset.samples.x is second.dataset.samples.x
    assert first.dataset.samples.x.is_meta
    assert not data.parts["train"].x.is_meta


def test_data_that_cannot_be_resident_are_refused():
    with pytest.raises(UserError, match=r"data\.resident=true needs data that are one array"):
        ready(resident=True, augmentation=v2.RandomHorizontalFlip()).loader("train", device=CPU)


def test_a_mixing_is_checked_even_if_validation_is_turned_off_globally(monkeypatch):
    monkeypatch.setattr(Distribution, "_validate_args", False)  # as torch.compile does
    with pytest.raises(UserError, match="the mixing refuses its settings"):
        ready(mixing=functools.partial(v2.MixUp, alpha=-1.0))
    assert not Distribution._validate_args
