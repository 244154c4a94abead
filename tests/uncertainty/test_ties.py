import itertools

import torch

from kd_lightning.uncertainty.ties import mean_over_ties


def test_tied_samples_get_their_mean_and_others_keep_their_value():
    key = torch.tensor([0.2, 0.9, 0.2, 0.5, 0.9, 0.9])
    values = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    third = 1 / 3
    expected = torch.tensor([0.5, third, 0.5, 1, third, third], dtype=torch.float64)
    torch.testing.assert_close(mean_over_ties(values, key), expected)


def test_it_is_the_mean_over_all_orders_of_tied_samples():
    key, values = torch.tensor([1.0, 1.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 6.0, 5.0])
    orders = [
        [values[i] for i in order] + [values[3]] for order in itertools.permutations(range(3))
    ]
    found = mean_over_ties(values, key)
    torch.testing.assert_close(found, torch.tensor(orders, dtype=torch.float64).mean(dim=0))
