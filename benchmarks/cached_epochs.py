"""Epochs with the teacher's outputs read from a cache, compared with epochs without a teacher.

Both read their data from their loader, with augmentation. The cache holds two views of the data, so
that each epoch reads other files than the epoch before. There is no Trainer.
"""

import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from lightning.fabric.utilities import move_data_to_device

from benchmarks.paired_timing import Step
from benchmarks.ratio_table import Rows, ratio_row
from benchmarks.steps import SMALL, TWO_STUDENTS, Case, build_case, case_from
from kd_lightning.teacher_cache.cache import use_cache
from kd_lightning.teachers.baselines import baseline_run

DATA = {
    "digits, 20 batches": ("data=digits", "augmentation@data.augmentation=shift",
                           "data.augmentation.size=8", "data.augmentation.padding=1"),
    "32 px, 4 batches": (*SMALL, *TWO_STUDENTS, "data.num_train=128", "data.val_fraction=0",
                         "augmentation@data.augmentation=crop_flip"),
}  # fmt: skip


def cached_epochs(hardware: Sequence[str]) -> Rows:
    """An epoch of dual_student with a cache, including loader and files, over an epoch of both
    students from labels only with the same loader. The nets of digits are so small that the loss
    terms (six with the teacher, two without) take a large part of the time.
    """
    for name, words in DATA.items():
        with tempfile.TemporaryDirectory() as folder:
            store = f"teacher.cache_store={folder}"
            cached = build_case("method=dual_student", *words, *hardware, "teacher.cache=2", store)
            alone = case_from(baseline_run(cached.cfg))
            device = cached.batch[0].device
            fill = use_cache(
                cached.cfg, cached.data, cached.method, cached.teacher, device, say=lambda _: None
            )
            fill()
            assert any(Path(folder).rglob("logits-*"))
            title = f"cached epoch / students-only epoch, {name}"
            yield ratio_row(title, epoch_of(cached), epoch_of(alone))


def epoch_of(case: Case) -> Step:
    """A function that runs one epoch; each call runs the next one."""
    step, device = case.step(), case.batch[0].device
    loader, epochs = case.data.loader("train", device=device), count()

    def epoch() -> None:
        loader.batch_sampler.sampler.set_epoch(next(epochs))
        for batch in loader:
            case.batch[:] = move_data_to_device(batch, device)
            step()

    return epoch
