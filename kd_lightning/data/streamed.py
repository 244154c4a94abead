"""A tree of images that was packed into chunks, and is read from wherever they lie.

``python -m kd_lightning.prepare format=litdata`` writes the folder: ``train/``, ``test/`` and
perhaps ``val/`` hold chunks of image files as they are, and ``stream.json`` says what they are of.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.data.classification import Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.folders import check_folder
from kd_lightning.data.loading.image_files import ImageFiles, read_rgb_from
from kd_lightning.data.loading.packed_files import Packed, check_litdata, download
from kd_lightning.data.loading.splits import split_seed_of

FORMAT = 2
FACTS = "stream.json"
# Of the storages that litdata knows: those it asks for parts of a chunk, as another is kept whole.
SCHEMES = ("s3://", "gs://")


class Streamed(ImageFiles):
    """``root`` is the folder, or an address: ``s3://bucket/images``, or ``gs://…``.

    It is the tree, to the last bit: its fingerprint, its split, its order and its batches; a
    teacher of one is a teacher of the other. Each image is read when a batch needs it, by as many
    ``num_workers`` as load, and none is kept: an epoch is as fast as what it is read from.

    Args:
        val_fraction: share of train that becomes val; None: what the tree's data set had.
        split_seed: None: the tree's; where its test part was cut from train, no other is taken.

    Attributes:
        class_list_sha256: of the list of classes, where the tree's data set had one.
    """

    class_list_sha256: str | None = None

    def __init__(
        self,
        *,
        root: str | None = None,
        val_fraction: float | None = None,
        split_seed: int | None = None,
        **common,
    ) -> None:
        is_address = root is not None and "://" in str(root)
        if is_address and not str(root).startswith(SCHEMES):
            raise UserError(
                f"data.root={root} must be a folder, or an address that begins with "
                f"{' or '.join(SCHEMES)}"
            )
        super().__init__(
            root=None if is_address else root,  # which a path would spoil
            val_fraction=0.0 if val_fraction is None else val_fraction,
            split_seed=0 if split_seed is None else split_seed,
            **common,
        )
        self.address = str(root).rstrip("/") if is_address else None
        self._splits_as_the_tree = val_fraction is None
        self._asked_split_seed = split_seed

    @staticmethod
    def decode(path: Packed) -> UInt8[Tensor, "3 H W"]:
        return read_rgb_from(path.open(), path.name)

    def load(self) -> Parts:
        where, facts = self._read_facts()
        check_litdata()
        if self._splits_as_the_tree:
            self.val_fraction = facts["val_fraction"]
        self.split_seed = split_seed_of(facts, self._asked_split_seed)
        self.imagenet_rows = facts["imagenet_rows"]
        self.class_list_sha256 = facts["class_list_sha256"]
        samples = {}
        for part, says in facts["parts"].items():
            files = zip(says["names"], says["sizes"], strict=True)
            x = [Packed(f"{where}/{part}", row, *file) for row, file in enumerate(files)]
            samples[part] = Samples(x, torch.tensor(says["labels"]))
            x[-1].open()
        return Parts(
            train=samples["train"],
            val=samples.get("val"),
            test=samples["test"],
            class_names=facts["class_names"],
            test_is=facts["test_is"],
            test_is_cut=facts["test_is_cut"],
        )

    def _read_facts(self) -> tuple[str, dict[str, Any]]:
        """Where the chunks are, and what they are of."""
        what = "a folder that python -m kd_lightning.prepare format=litdata has made"
        if self.address is None:
            where = check_folder(self.root, [FACTS], what)
            facts = json.loads((where / FACTS).read_text())
        else:
            where = self.address
            check_litdata()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    facts = json.loads(download(where, FACTS, Path(folder)).read_text())
                except Exception as error:  # of whatever kind the storage's own library has
                    why = " ".join(str(error).split())
                    raise UserError(
                        f"expected {what} with {FACTS} at {where}: {why} (data.root=…)"
                    ) from None
        if facts.get("format") != FORMAT:
            raise UserError(
                f"{where} is of format {facts.get('format')}, this version reads {FORMAT}: pack it "
                "again (data.root=…)"
            )
        return str(where), facts
