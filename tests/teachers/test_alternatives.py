import pytest
import torch
from torch import nn

from kd_lightning.base.weights_hash import sha256_of
from kd_lightning.models.assemble import CheckedPrepare, GlobalAverage
from kd_lightning.models.classifier import Classifier, Prepare
from kd_lightning.teachers import alternatives
from kd_lightning.teachers.alternatives import AS_IT_IS, IMAGENET, Alternative

KEYS = ("mean", "std", "input_size")
OWN = {1: ([0.3], [0.4]), 2: ([5.0, -3.0], [2.0, 4.0]), 3: ([0.3, 0.4, 0.5], [0.2, 0.2, 0.1])}


def net(channels: int, mean=None, std=None, size: int | None = None) -> Classifier:
    prepare = CheckedPrepare(channels, None, mean=mean, std=std, size=size)
    head = nn.Linear(channels, 3)
    return Classifier(prepare=prepare, trunk=GlobalAverage(), head=head, dropout=0.0).eval()


def normalizations(one: Classifier, channels: int, is_image: bool = True) -> list[Alternative]:
    own = OWN[channels]
    return list(alternatives.normalizations(one.prepare, own, is_image=is_image, keys=KEYS))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_every_normalization_is_what_its_advice_says(channels: int) -> None:
    x = torch.randint(256, (4, channels, 8, 8), dtype=torch.uint8)
    one = net(channels, *([0.1] * channels, [0.7] * channels))
    found = normalizations(one, channels)
    assert len(found) == {1: 6, 2: 4, 3: 6}[channels]
    for alternative in found:
        mean, std = (torch.tensor(eval(advice.partition("=")[2])) for advice in alternative.advice)
        expected = (x.float() / 255 - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
        changed = alternatives.applied(one, alternative)
        torch.testing.assert_close(changed.prepare(x), expected, rtol=1e-4, atol=1e-4)
        assert changed.trunk is one.trunk


def test_the_normalization_of_the_net_is_no_alternative() -> None:
    everything = {a.words for a in normalizations(net(3, [9.0] * 3, [1.0] * 3), 3)}
    for statistics, words in (
        (IMAGENET, "with the mean and std of ImageNet"),
        (([0.5] * 3, [0.5] * 3), "with mean 0.5 and std 0.5"),
        ((None, None), "with inputs in [0, 1]"),
        (OWN[3], "with the mean and std of the data"),
    ):
        rest = {a.words for a in normalizations(net(3, *statistics), 3)}
        assert everything - rest == {words}


def test_the_statistics_of_colours_serve_grey_images_by_their_means() -> None:
    (imagenet,) = [a for a in normalizations(net(1), 1) if "ImageNet" in a.words]
    assert imagenet.advice == ["method.teacher.mean=[0.449]", "method.teacher.std=[0.226]"]


def test_series_are_normalized_by_their_channels_or_one_by_one() -> None:
    x = torch.randn(6, 2, 50) * 3 + 7
    raw, each = normalizations(net(2, *OWN[2]), 2, is_image=False)
    assert torch.equal(alternatives.applied(net(2, *OWN[2]), raw).prepare(x), x)
    done = alternatives.applied(net(2), each).prepare(x)
    torch.testing.assert_close(done.mean(-1), torch.zeros(6, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(done.std(-1), torch.ones(6, 2))
    assert each.advice_in_words() == "normalize each series of the files to mean 0 and std 1"


def test_a_net_without_the_key_is_to_be_changed_in_its_code() -> None:
    found = alternatives.normalizations(net(3).prepare, OWN[3], is_image=True, keys=())
    words = next(iter(found)).advice_in_words()
    assert words.startswith("write mean=[0.485,0.456,0.406] into the code of the net and write std")


def test_colours_can_be_reversed_and_grey_cannot() -> None:
    x = torch.rand(2, 3, 8, 8)
    (bgr,) = alternatives.channel_orders(3)
    one = net(3, *OWN[3])
    assert torch.equal(alternatives.applied(one, bgr).prepare(x), one.prepare(x.flip(1)))
    assert not list(alternatives.channel_orders(1))


@pytest.mark.parametrize(
    ("size", "input_size", "expected"),
    [
        (8, None, ["32", "64"]),
        (32, None, ["64", "128", "224"]),
        (224, None, ["32", "64", "128"]),
        (32, 224, ["32", "64", "128"]),
    ],
)
def test_sizes_are_common_ones_that_are_not_too_far(
    size: int, input_size: int | None, expected: list[str]
) -> None:
    prepare = Prepare(size=input_size)
    found = list(alternatives.input_sizes(prepare, size, KEYS))
    assert [a.advice[0] for a in found] == [f"method.teacher.input_size={s}" for s in expected]
    for alternative in found:
        side = int(alternative.words.split()[-1])
        assert alternative.prepare(prepare)(torch.zeros(1, 3, size, size)).shape[-1] == side
    assert prepare.size == input_size


def test_nothing_of_the_net_changes() -> None:
    one = net(3, *OWN[3])
    one(torch.rand(1, 3, 32, 32))
    before = sha256_of(one)
    for alternative in (
        AS_IT_IS,
        *normalizations(one, 3),
        *alternatives.channel_orders(3),
    ):
        alternatives.applied(one, alternative)(torch.rand(1, 3, 32, 32))
        assert sha256_of(one) == before
        assert isinstance(one.prepare, CheckedPrepare)
    assert alternatives.applied(one, AS_IT_IS) is one


def test_a_net_of_a_user_may_prepare_its_input_in_its_own_way() -> None:
    assert alternatives.can_prepare(net(1))
    assert not alternatives.can_prepare(nn.Linear(2, 2))
    own = Classifier(prepare=nn.Identity(), trunk=nn.Flatten(), head=nn.Linear(2, 2), dropout=0.0)
    assert not alternatives.can_prepare(own)


def test_two_alternatives_add_up() -> None:
    (bgr,) = alternatives.channel_orders(3)
    squash = Alternative(
        "with data.resize=squash", ["data.resize=squash"], None, {"resize": "squash"}
    )
    both = bgr.and_also(squash)
    assert both.prepare is bgr.prepare
    assert both.of_data == squash.of_data
    assert both.advice_in_words().startswith("add data.resize=squash and reverse the input")
