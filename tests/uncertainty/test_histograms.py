import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch.nn import functional as F

from kd_lightning.uncertainty.histograms import confidence_histogram, entropy_histogram


def normal(*shape):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_counts_by_hand():
    uniform, certain = torch.zeros(1, 4), 1e4 * F.one_hot(torch.tensor([2]), 4).float()
    logits = torch.cat([uniform, certain, certain])
    assert confidence_histogram(logits, 4).tolist() == [1, 0, 0, 2]
    assert entropy_histogram(logits, 4).tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize("num_bins", [5, 20])
def test_counts_agree_with_numpy_and_scipy(num_bins):
    probs = normal(500, 7).double().softmax(dim=1).numpy()
    for histogram, values in (
        (confidence_histogram, probs.max(axis=1)),
        (entropy_histogram, entropy(probs, axis=1) / math.log(7)),
    ):
        theirs, _ = np.histogram(values, bins=num_bins, range=(0, 1))
        assert histogram(normal(500, 7), num_bins).tolist() == theirs.tolist()


def test_without_samples_all_counts_are_zero():
    for histogram in (confidence_histogram, entropy_histogram):
        assert histogram(torch.zeros(0, 3)).tolist() == [0] * 20
