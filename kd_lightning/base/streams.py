"""Named random streams: each use of random numbers has its own seed, made of the run's seed and
the name of the use.

Initial weights depend on (seed, student key), order and augmentation on (seed, epoch, sample),
dropout masks on (seed, rank, step). So a further student does not change the others, the order in
which things are built does not matter, and a run that is resumed at the start of an epoch needs no
saved generator state.
"""

import hashlib

import torch


def stream_seed(*name: int | str) -> int:
    """A seed in [0, 2^63). It depends on each part of ``name`` and on nothing else."""
    digest = hashlib.blake2b(repr(name).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stream(*name: int | str) -> torch.Generator:
    """A CPU generator at the start of the stream ``name``."""
    return torch.Generator().manual_seed(stream_seed(*name))


def seed_stream(*name: int | str, device: torch.device | None = None) -> None:
    """Sets the default generators of the CPU and of ``device`` to the start of a stream.

    It is for functions that take no generator (``F.dropout``, torchvision's transforms). It does
    not call ``torch.manual_seed``, which formats a stack trace if CUDA is installed but unused.
    """
    seed = stream_seed(*name)
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        with torch.cuda.device(device):  # else the current one would be seeded
            torch.cuda.manual_seed(seed)
    elif device is not None and device.type == "mps":
        torch.mps.manual_seed(seed)
