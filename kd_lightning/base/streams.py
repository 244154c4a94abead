"""Named streams of randomness: a seed for each use, from the run's seed and the use's name.

Initial weights follow from (seed, student key), order and augmentation from (seed, epoch, sample),
dropout masks from (seed, rank, step). So adding a student changes nothing for the others, nothing
depends on the order in which things are built, and a run that is resumed at an epoch boundary
needs no saved generator state.
"""

import hashlib

import torch


def stream_seed(*name: int | str) -> int:
    """A seed in [0, 2^63) that depends on every part of ``name`` and on nothing else."""
    digest = hashlib.blake2b(repr(name).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stream(*name: int | str) -> torch.Generator:
    """A CPU generator at the start of the stream ``name``."""
    return torch.Generator().manual_seed(stream_seed(*name))


def seed_stream(*name: int | str, device: torch.device | None = None) -> None:
    """Puts the default generator, of the CPU and of ``device``, at the start of a stream.

    For randomness that takes no generator (``F.dropout``, torchvision's transforms). Not
    ``torch.manual_seed``: that formats a stack trace where CUDA is installed but not yet used.
    """
    seed = stream_seed(*name)
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device is not None and device.type == "mps":
        torch.mps.manual_seed(seed)
