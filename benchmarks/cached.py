"""Whole epochs with a teacher's answers from the files of a cache, beside epochs without a teacher.

Both from their loader, augmentation included; the cache has two views, so that every epoch reads
its own from the disk. No Trainer.
"""

import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from lightning.fabric.utilities import move_data_to_device

from benchmarks.paired import Step
from benchmarks.rows import Rows, beside
from benchmarks.steps import SMALL, TWO, Made, made, made_of
from kd_lightning.teacher_cache.cache import use_cache
from kd_lightning.teachers.sources import baseline_run

SETS = {
    "digits, 20 batches": ("data=digits", "augmentation@data.augmentation=shift",
                           "data.augmentation.size=8", "data.augmentation.padding=1"),
    "32 px, 4 batches": (*SMALL, *TWO, "data.num_train=128", "data.val_fraction=0",
                         "augmentation@data.augmentation=crop_flip"),
}  # fmt: skip


def cached(hardware: Sequence[str]) -> Rows:
    """An epoch of dual_student with a cache, through loader and files, over one of both students
    from labels alone through the same loader. The nets of digits are so small that the loss terms,
    six in place of two, are a good part of it.
    """
    for name, words in SETS.items():
        with tempfile.TemporaryDirectory() as folder:
            store = f"teacher.cache_store={folder}"
            ours = made("method=dual_student", *words, *hardware, "teacher.cache=2", store)
            alone = made_of(baseline_run(ours.cfg))
            device = ours.batch[0].device
            use_cache(ours.cfg, ours.data, ours.method, ours.teacher, device, say=lambda _: None)()
            assert any(Path(folder).rglob("logits-*"))
            title = f"cached epoch / students-only epoch, {name}"
            yield beside(title, epoch_of(ours), epoch_of(alone))


def epoch_of(case: Made) -> Step:
    """One epoch, the next at every call."""
    step, device = case.step(), case.batch[0].device
    loader, epochs = case.data.loader("train", device=device), count()

    def epoch() -> None:
        loader.batch_sampler.sampler.set_epoch(next(epochs))
        for batch in loader:
            case.batch[:] = move_data_to_device(batch, device)
            step()

    return epoch
