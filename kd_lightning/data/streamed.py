"""``data=streamed``: image files packed into chunks, read from a folder or from remote storage.

``data/preparation/pack.py`` (``kd_lightning.prepare format=litdata``) writes the folder:
``train/``, ``test/`` and maybe ``val/`` hold chunks of unchanged image files, and ``stream.json``
describes them. Images are decoded when a batch needs them.
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.data.classification import Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.decoding import read_rgb_from
from kd_lightning.data.loading.folders import check_folder
from kd_lightning.data.loading.image_files import ImageFiles
from kd_lightning.data.loading.packed_files import PackedFile, check_litdata, download
from kd_lightning.data.loading.prepared_facts import read_facts, resolve_prepared
from kd_lightning.data.loading.splits import resolve_split_seed

FORMAT = 2
INDEX_FILE = "stream.json"
OF_PARTS = ("names", "sizes")  # what the index has for each image
# Of litdata's storages, those that support range requests; of others it would store whole chunks.
SCHEMES = ("s3://", "gs://")


class Streamed(ImageFiles):
    """``root`` is the packed folder or its address, ``s3://bucket/images`` or ``gs://…``.

    Fingerprint, split, order and batches are bit for bit those of the source image tree, so a
    teacher trained on one can be used with the other. Each image is read when a batch needs it, by
    the ``num_workers`` loading processes, and is not stored. So the storage limits the speed.

    Args:
        val_fraction: share of train that becomes val; None: that of preparation.
        split_seed: seed of the train/val split; None: that of preparation. If the test part was
            split off from train during preparation, no other seed is accepted.
        exif: whether images are turned as their orientation tag says; None: as in preparation. No
            other value is accepted.

    Attributes:
        class_list_sha256: hash of the class list; None: the source data set had none.
    """

    class_list_sha256: str | None = None

    def __init__(
        self,
        *,
        root: str | None = None,
        val_fraction: float | None = None,
        split_seed: int | None = None,
        exif: bool | None = None,
        **common,
    ) -> None:
        is_address = root is not None and "://" in str(root)
        if is_address and not str(root).startswith(SCHEMES):
            raise UserError(
                f"data.root={root} must be a folder, or an address that begins with "
                f"{' or '.join(SCHEMES)}"
            )
        super().__init__(
            root=None if is_address else root,  # a Path would change the address
            val_fraction=0.0 if val_fraction is None else val_fraction,
            split_seed=0 if split_seed is None else split_seed,
            exif=bool(exif),
            **common,
        )
        self.address = str(root).rstrip("/") if is_address else None
        self._use_prepared_val_fraction = val_fraction is None
        self._requested_split_seed = split_seed
        self._requested_exif = exif

    @property
    def decode(self) -> Callable[[PackedFile], UInt8[Tensor, "3 H W"]]:
        return functools.partial(read_packed_rgb, exif=self.exif)

    def load(self) -> Parts:
        location, facts = self._read_index()
        check_litdata()
        if self._use_prepared_val_fraction:
            self.val_fraction = facts["val_fraction"]
        self.split_seed = resolve_split_seed(facts, self._requested_split_seed)
        self.exif = resolve_prepared(facts, "exif", self._requested_exif)
        self.notes += facts.get("notes", [])
        self.imagenet_rows = facts["imagenet_rows"]
        self.class_list_sha256 = facts["class_list_sha256"]
        samples = {}
        for part, of_part in facts["parts"].items():
            files = zip(of_part["names"], of_part["sizes"], strict=True)
            x = [PackedFile(f"{location}/{part}", row, *file) for row, file in enumerate(files)]
            samples[part] = Samples(x, torch.tensor(of_part["labels"]))
            x[-1].open()  # fails now if the chunks cannot be read
        return Parts(
            train=samples["train"],
            val=samples.get("val"),
            test=samples["test"],
            class_names=facts["class_names"],
            test_is=facts["test_is"],
            test_is_cut=facts["test_is_cut"],
        )

    def _read_index(self) -> tuple[str, dict[str, Any]]:
        """The location of the chunks, and their metadata."""
        what = "a folder that python -m kd_lightning.prepare format=litdata has made"
        if self.address is None:
            location = check_folder(self.root, [INDEX_FILE], what)
            facts = read_facts(location / INDEX_FILE, location, FORMAT, OF_PARTS)
        else:
            location = self.address
            check_litdata()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    path = download(location, INDEX_FILE, Path(folder))
                except Exception as error:  # each storage library has its own errors
                    reason = " ".join(str(error).split())
                    raise UserError(
                        f"expected {what} with {INDEX_FILE} at {location}: {reason} (data.root=…)"
                    ) from None
                facts = read_facts(path, location, FORMAT, OF_PARTS)
        return str(location), facts


def read_packed_rgb(file: PackedFile, *, exif: bool) -> UInt8[Tensor, "3 H W"]:
    """``read_rgb`` for a packed file."""
    return read_rgb_from(file.open(), file.name, exif=exif)
