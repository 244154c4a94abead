"""Short digests of weights."""

import hashlib

import torch
from torch import nn


def sha256_of(net: nn.Module) -> str:
    """16 hex digits of a net's weights and buffers."""
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
