import numpy as np
import pytest
import torch
from helpers import TINY
from torch.nn import functional as F

from kd_lightning import distill
from kd_lightning.data.loading.batches import Samples, SampleSet
from kd_lightning.data.loading.loaders import make_loader
from kd_lightning.evaluation import test_records as records

N, C = 40, 3
LABELS = torch.arange(N) % C


def logits_of(classes, sure=4.0):
    """Logits that predict these classes, each next sample a little less surely."""
    steps = torch.linspace(1.0, 0.5, len(classes))[:, None]
    return F.one_hot(classes, C).float() * sure * steps


def loader_of(x, y=LABELS):
    samples = SampleSet(Samples(x, y), seed=0)
    return make_loader(samples, 16, shuffle=False, rank=0, ranks=1, num_workers=0, pin_memory=False)


def images(size=8):
    return torch.arange(N * size * size).reshape(N, 1, size, size).remainder(256).to(torch.uint8)


def read(path):
    with np.load(path) as file:
        return dict(file)


def test_predictions_hold_classes_and_probabilities_of_each_net():
    logits = {
        "teacher": logits_of(LABELS),
        "a": logits_of((LABELS + 1) % C),
        "vote": logits_of(LABELS),
    }
    found = records.predictions_of(logits, LABELS, frozenset({"vote"}))
    assert list(found) == [
        "labels", "teacher/predicted", "teacher/confidence", "teacher/label_probability",
        "a/predicted", "a/confidence", "a/label_probability", "vote/predicted",
    ]  # fmt: skip
    assert {
        name: str(values.dtype) for name, values in found.items() if "/c" in name or "/l" in name
    } == (dict.fromkeys([name for name in found if "/c" in name or "/l" in name], "float32"))
    np.testing.assert_array_equal(found["a/predicted"], (LABELS + 1) % C)
    e = np.exp(4.0)
    assert found["a/confidence"][0] == pytest.approx(e / (e + 2))
    assert found["a/label_probability"][0] == pytest.approx(1 / (e + 2))
    np.testing.assert_array_equal(found["teacher/confidence"], found["teacher/label_probability"])


def test_examples_are_where_teacher_and_student_differ_the_surest_first():
    classes = LABELS.clone()
    classes[[5, 9, 2]] += 1
    student = logits_of(classes % C)
    student[9] *= 2
    teacher = logits_of(LABELS)
    teacher[9] *= 2
    found = records.predictions_of({"teacher": teacher, "a": student}, LABELS)
    assert records.choose_examples(found, "a").tolist() == [9, 2, 5]


def test_without_a_teacher_examples_are_the_surest_errors_and_at_most_24():
    found = records.predictions_of({"a": logits_of((LABELS + 1) % C)}, LABELS)
    assert records.choose_examples(found, "a").tolist() == list(range(records.MAX_EXAMPLES))


@pytest.mark.parametrize("size", [8, 100])
def test_images_are_kept_up_to_64_pixels(size, tmp_path):
    x = images(size)
    wrong = {"a": logits_of((LABELS + 1) % C)}
    records.write(tmp_path, wrong, LABELS, loader_of(x), student="a")
    found = read(tmp_path / records.EXAMPLES)
    assert found["image"].dtype == np.uint8
    assert found["image"].shape == (24, 1, min(size, 64), min(size, 64))
    if size == 8:
        np.testing.assert_array_equal(found["image"], x[:24])
    assert list(found)[:2] == ["index", "labels"]
    assert "a/label_probability" not in found


def test_float_images_have_the_same_pixels_as_uint8():
    x = images()
    np.testing.assert_array_equal(records.reduced(x / 255)["image"], records.reduced(x)["image"])


def test_series_keep_at_most_256_points_and_4_channels():
    x = torch.arange(1000.0).repeat(2, 6, 1)
    found = records.reduced(x)["series"]
    assert found.shape == (2, 4, 256)
    assert (found[0, 0, 0], found[0, 0, -1]) == (0, 999)
    np.testing.assert_array_equal(records.reduced(x[:, :1, :50])["series"], x[:, :1, :50])


def test_samples_are_found_where_files_were_skipped():
    class Skipping(list):
        dataset = range(N + 1)  # one more than the loader gives

    batches = Skipping([(images()[:16], None), (images()[16:], None)])
    found = records.samples_at(batches, np.array([20, 3]), N)
    assert torch.equal(found, images()[[20, 3]])


def test_nothing_to_show_is_an_empty_file_without_samples(tmp_path):
    records.write(tmp_path, {"a": logits_of(LABELS)}, LABELS, loader_of(images()), student="a")
    found = read(tmp_path / records.EXAMPLES)
    assert len(found["index"]) == 0
    assert "image" not in found


@pytest.mark.slow
def test_a_run_writes_them_and_a_repeated_test_gives_equal_bytes(tmp_path, store):
    first = distill(*TINY, f"outputs={tmp_path}", f"teacher.store={store}", "threads=1")
    paths = [first.directory / name for name in (records.PREDICTIONS, records.EXAMPLES)]
    before = [path.read_bytes() for path in paths]
    (first.directory / "metrics.json").unlink()
    distill(f"resume={first.directory}")
    assert [path.read_bytes() for path in paths] == before
    found = read(paths[0])
    nets = list(dict.fromkeys(name.partition("/")[0] for name in list(found)[1:]))
    assert nets == list(first.metrics["nets"])
    for name, net in first.metrics["nets"].items():
        accuracy = (found[f"{name}/predicted"] == found["labels"]).mean()
        assert accuracy == pytest.approx(net["test"]["accuracy"], abs=1e-6)
    assert not list(first.directory.glob("*.tmp"))
