import torch
from helpers import compose

from kd_lightning.data.loading.chosen import batches_of
from kd_lightning.running.build import build_data


def test_some_samples_come_in_order_and_the_data_set_stays_as_it_is() -> None:
    data = build_data(compose("data=synthetic", "data.num_train=64", "data.num_test=32"))
    test, rows = data.parts["test"], torch.tensor([3, 5, 31])
    x, y = map(torch.cat, zip(*batches_of(data, test.subset(rows)), strict=True))
    assert torch.equal(x, test.x[rows])
    assert torch.equal(y, test.y[rows])
    assert len(data.parts["test"]) == 32
