"""A cached run shows its students what the teacher saw, and tells them what it said of it."""

import json
import pickle
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from damage import DAMAGE
from filelock import FileLock, Timeout
from forked_runs import SECONDS, start_run
from helpers import CONF, compose
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.torture.forked import wait_for_all
from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import write_kept
from kd_lightning.config.user_messages import user_message
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.batches import Views
from kd_lightning.methods.distiller import Distiller
from kd_lightning.records.jobs import is_locked
from kd_lightning.running.build import build_data, build_method
from kd_lightning.running.support import check_support
from kd_lightning.teacher_cache import cache, files, filling
from kd_lightning.teacher_cache.cache import some_of, use_cache
from kd_lightning.teacher_cache.top_logits import check_mass, compressed, expanded
from kd_lightning.teachers.sources import Teacher, build_net

OF_IMAGE_SIZE = ("imagenet", "randaugment")
AUGMENTATIONS = sorted(path.stem for path in (CONF / "augmentation").glob("*.yaml"))
SIZES = {"shift": 28}
# of logits in fp16, of the teacher by itself and in another batch
TOLERANCE = {"rtol": 2e-3, "atol": 2e-3}
CPU = torch.device("cpu")


class Case(SimpleNamespace):
    """A run up to its cache."""

    cfg: DictConfig
    data: ClassificationData
    method: Distiller
    teacher: Teacher
    said: list[str]

    def use(self) -> None:
        fill = use_cache(self.cfg, self.data, self.method, self.teacher, CPU, self.said.append)
        if fill is not None:
            fill()

    def batches(self, epoch: int = 0) -> list:
        loader = self.data.loader("train")
        loader.batch_sampler.sampler.set_epoch(epoch)
        return list(loader)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Case]:
    def make(*words: str, augmentation: str | None = "crop_flip", seed: int = 1) -> Case:
        size = SIZES.get(augmentation, 32)
        augmented = [f"augmentation@data.augmentation={augmentation}"] if augmentation else []
        if augmentation in OF_IMAGE_SIZE:  # which synthetic data do not state
            augmented.append("data.augmentation.transforms.0.size=32")
        cfg = compose("method=kd", "data=synthetic", "data.num_train=48", "data.num_test=16",
                      "data.batch_size=16", f"data.size={size}", "teacher.cache=2",
                      f"teacher.cache_store={tmp_path}", "model@method.teacher=resnet8",
                      "hardware=cpu", *augmented, *words)  # fmt: skip
        data = build_data(cfg)
        teacher = Teacher(build_net(cfg.method.teacher, seed, "teacher"), "", "")
        with torch.no_grad():
            teacher.net.head.weight.mul_(20)  # untrained nets are sure of nothing
        method = build_method(cfg, teacher).train()
        return Case(cfg=cfg, data=data, method=method, teacher=teacher, said=[])

    return make


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_images_are_bit_equal_to_those_without_answers_and_answers_are_the_teachers(
    augmentation: str, made: Callable[..., Case]
) -> None:
    case = made(augmentation=augmentation)
    case.use()
    cached = case.batches(1)
    case.data.views = Views(2, case.cfg.teacher.seed)
    plain = case.batches(1)
    assert len(cached) == len(plain) > 1
    for (x, y, known), (plain_x, plain_y) in zip(cached, plain, strict=True):
        assert torch.equal(x, plain_x)
        assert torch.equal(y, plain_y)
        assert known["logits"].dtype == torch.float16
        with torch.no_grad():
            logits = case.teacher.net(x).logits
        torch.testing.assert_close(known["logits"].float(), logits, **TOLERANCE)
    assert logits.std() > 0.5  # they say something that could be wrong


def test_an_epoch_shows_its_view_and_the_views_come_again(made: Callable[..., Case]) -> None:
    case = made()
    case.use()

    def images(epoch: int) -> Tensor:
        found = {int(i): x for batch in keyed(case, epoch) for i, x in batch}
        return torch.stack([found[i] for i in sorted(found)])

    assert not torch.equal(images(0), images(1))
    assert torch.equal(images(0), images(2))
    assert torch.equal(images(1), images(3))


def keyed(case: Case, epoch: int) -> list[list[tuple[int, Tensor]]]:
    """The batches of an epoch, each image with the index of its sample."""
    samples = case.data._sample_set("train")
    keys = list(case.data.loader("train").batch_sampler.sampler)
    return [[(i, samples[epoch, i][0]) for _, i in keys]]


def test_views_follow_from_the_teachers_seed_and_not_from_the_runs(
    made: Callable[..., Case],
) -> None:
    def image(*words: str) -> Tensor:
        case = made(*words)
        case.use()
        return case.data._sample_set("train")[0, 3][0]

    assert torch.equal(image("seed=0"), image("seed=1"))
    assert not torch.equal(image(), image("teacher.seed=1"))


def test_runs_of_other_seeds_and_temperatures_share_a_cache(
    made: Callable[..., Case], tmp_path: Path
) -> None:
    for words in (["seed=0"], ["seed=1", "method.temperature=2", "data.batch_size=8"]):
        case = made(*words)
        case.use()
    assert case.said == []
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "words",
    [["teacher.seed=1"], ["data.split_seed=1"], ["data.augmentation.transforms.0.padding=2"],
     ["teacher.cache=3"], ["hardware.teacher_precision=bf16"], ["data.num_train=64"],
     ["method.teacher.dropout=0.3"]],
)  # fmt: skip
def test_what_would_change_the_answers_makes_another_cache(
    words: list[str], made: Callable[..., Case], tmp_path: Path
) -> None:
    for more in ([], words):
        made(*more).use()
    assert len(list(tmp_path.iterdir())) == 2


def test_another_teacher_makes_another_cache(made: Callable[..., Case], tmp_path: Path) -> None:
    for seed in (1, 2):
        made(seed=seed).use()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_teacher_without_a_twin_has_a_cache_of_its_own(
    made: Callable[..., Case], tmp_path: Path
) -> None:
    for has_twin in (True, False):
        case = made()
        if not has_twin:
            case.method.make_fast = lambda net, x: net  # as where the two did not agree
        case.use()
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_known_is_held_where_the_samples_are(made: Callable[..., Case]) -> None:
    case = made()
    case.use()
    known = case.data.views.cached
    expected = known(1, torch.tensor([3, 0]))["logits"]
    there = known(1, torch.tensor([3, 0], device="meta"))["logits"]
    assert there.device.type == "meta"  # stands for a GPU: nothing of it comes back
    assert there.shape == expected.shape
    assert torch.equal(known(1, torch.tensor([3, 0]))["logits"], expected)
    case.data.resident = False
    loaded = case.data.loader("train", device=CPU)
    assert isinstance(loaded, DataLoader)
    case.data.resident = True
    for a, b in zip(loaded, case.data.loader("train", device=CPU), strict=True):
        assert torch.equal(a[2]["logits"], b[2]["logits"])


def passes(case: Case, steps: int = 3) -> int:
    """How often the teacher is asked in a few training steps."""
    seen = []
    for net in (case.teacher.net, case.method.teacher_for(case.batches()[0][0])):
        net.trunk.register_forward_pre_hook(lambda module, x: seen.append(1))
    for batch in case.batches()[:steps]:
        case.method.training_step(batch, 0)
    return len(seen)


SSD = ("method=stochastic_self_distillation", "method.teacher.dropout=0.5",
       "method.teacher.block_dropout=0.0")  # fmt: skip


@pytest.mark.parametrize("words", [["method=kd"], ["method=dual_student"], SSD])
def test_the_teacher_is_not_asked_while_students_train(
    words: list[str], made: Callable[..., Case]
) -> None:
    case = made(*words)
    assert passes(case) == 2  # of two batches
    case.use()
    assert passes(case) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["method=kd"],
        ["method=dual_student"],
        ["method=dual_student", "confidence@method.confidence=margin"],
        ["method=dual_student", "confidence@method.confidence=correct"],
        SSD,
        [*SSD, "method.stochastic=false"],
    ],
)
def test_losses_are_those_of_a_run_that_asks_its_teacher(
    words: list[str], made: Callable[..., Case]
) -> None:
    case = made(*words)
    case.use()
    batches = case.batches()
    losses = []
    for known in (True, False):
        for batch in batches:
            x, y, values = batch
            losses.append(case.method.training_step((x, y, values) if known else (x, y), 0))
    cached, online = torch.stack(losses).view(2, -1)
    torch.testing.assert_close(cached, online, rtol=2e-3, atol=2e-3)
    assert cached.std() > 0


def test_the_confidence_is_kept_in_float32_under_its_settings(
    made: Callable[..., Case], tmp_path: Path
) -> None:
    case = made("method=dual_student")
    case.use()
    x, y, known = case.batches()[0]
    assert known["confidence"].dtype == torch.float32
    with torch.no_grad():
        logits = case.teacher.net(x).logits
    confidence = case.method.teacher_confidence(logits, y)
    torch.testing.assert_close(known["confidence"], confidence, rtol=1e-4, atol=1e-5)
    other = made("method=dual_student", "method.confidence_temperature=4")
    other.use()
    assert other.said[0].startswith("teacher cache: confidence of 2 views of")  # not the logits
    assert len(list(tmp_path.glob("*/confidence-*.0-0"))) == 2
    assert len(list(tmp_path.glob("*/logits-*.0-0"))) == 1


def test_without_augmentation_one_view_holds_all(made: Callable[..., Case]) -> None:
    case = made("teacher.cache=5", augmentation=None)
    case.use()
    assert case.said[0].endswith("so 1 is kept, not 5")
    assert case.data.views.count == 1


def test_its_size_is_said_before_it_is_written(
    made: Callable[..., Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = made()
    monkeypatch.setattr(filling, "write_block", lambda *_: pytest.fail(case.said[-1]))
    with pytest.raises(
        pytest.fail.Exception, match=r"logits of 2 views of 38 samples, 1.5 kB to comp"
    ):
        case.use()


def test_a_full_disk_is_seen_before_anything_is_written(
    made: Callable[..., Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(UserError, match=r"needs 1.5 kB, and .* has 0.0 kB left"):
        made().use()
    assert not list(tmp_path.glob("*/logits*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mixing@data.mixing=mixup"], "data.mixing mixes two samples"),
        (["method=kd", "method.soft_weight=0"], "this run does not use its teacher"),
        (["method=feature_distillation"], "layers of the teacher, which a cache does not hold"),
        (
            [*SSD[:2], "method.teacher.block_dropout=0.1"],
            "dropout in its blocks .method.teacher.block_dropout.",
        ),
        (
            [
                "method=dual_student",
                "method.confidence_passes=5",
                "method.teacher.dropout=0.2",
                "confidence@method.confidence=mutual_information",
            ],
            "method.confidence_passes draws new dropout passes",
        ),
        (["teacher.cache=null", "teacher.cache_top_k=3"], "has no effect without teacher.cache"),
        ([*SSD, "teacher.cache_top_k=3"], "this run caches features, not logits"),
        (
            ["method=kd", "method.standardize_logits=true", "teacher.cache_top_k=3"],
            "standardized logits need the mean and the deviation over all classes",
        ),
        *(
            (
                [f"method={method}", f"soft_loss@method.soft_loss={loss}", "teacher.cache_top_k=3"],
                "compares all classes",
            )
            for method in ("kd", "dual_student")
            for loss in ("dkd", "dist", "mlkd", "reverse_kl")
        ),
    ],
)
def test_where_a_cache_cannot_be_right_it_is_refused(
    words: list[str], said: str, made: Callable[..., Case], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        made(*words).use()
    assert list(tmp_path.iterdir()) == []


def test_a_method_that_has_not_been_made_for_it_is_refused(made: Callable[..., Case]) -> None:
    case = made()
    case.method.cache_keys = lambda: Distiller.cache_keys(case.method)
    with pytest.raises(UserError, match=r"kd does not support teacher.cache=\d+: its losses"):
        check_support(case.cfg, case.method)


def test_a_confidence_that_cannot_be_named_is_refused(made: Callable[..., Case]) -> None:
    class Gate:
        def __call__(self, logits: Tensor, labels: Tensor, samples: None) -> Tensor:
            return torch.ones(len(logits))

    case = made("method=dual_student")
    case.method.confidence = Gate()
    with pytest.raises(UserError, match="a function with plain values, got Gate"):
        case.use()


def test_the_best_precision_is_named_after_what_it_is(
    made: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(cache, "best_dtype", lambda device, dtype=dtype: dtype)
        case = made("hardware.teacher_precision=best")
        facts = cache.facts_of(case.cfg, case.data, case.teacher, 2, CPU)
        found.append(facts["precision"])
    assert found == ["torch.bfloat16", "torch.float32"]


def test_workers_read_the_files_themselves(made: Callable[..., Case]) -> None:
    case = made()
    case.use()
    known = case.data.views.cached
    expected = known(1, torch.tensor([3, 0]))
    copy = pickle.loads(pickle.dumps(known))
    assert copy._rows == {}
    assert torch.equal(copy(1, torch.tensor([3, 0]))["logits"], expected["logits"])


def test_room_is_needed_for_what_is_missing_alone(
    made: Callable[..., Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made().use()
    next(iter(tmp_path.glob("*/logits-*.1-0"))).unlink()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=800))
    case = made()
    case.use()  # 760 of 1,520 bytes
    assert "760" not in case.said[0]
    assert "0.8 kB to compute" in case.said[0]


@pytest.mark.slow
def test_runs_that_start_together_make_one_cache(tmp_path: Path, tiny: list[str]) -> None:
    words = ["method=kd", *tiny, "teacher.cache=3", "data.size=32", "trainer.max_epochs=1",
             "augmentation@data.augmentation=crop_flip"]  # fmt: skip
    distill(*words[:-2], words[-1], "teacher.cache=null", "trainer.max_epochs=1")  # the teacher
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    runs = [start_run(log, *words) for log in logs]
    assert wait_for_all(runs, SECONDS)
    assert [run.exitcode for run in runs] == [0] * 3, "".join(log.read_text() for log in logs)
    assert len(list((tmp_path / "teacher_cache").glob("*/facts.json"))) == 1
    assert len(list((tmp_path / "teacher_cache").glob("*/logits-*"))) == 3


def test_answers_too_large_to_keep_are_refused(made: Callable[..., Case]) -> None:
    case = made()
    with torch.no_grad():
        case.teacher.net.head.bias.fill_(1e6)
    with pytest.raises(UserError, match=r"logits do not fit a cache of torch.float16"):
        case.use()


def test_a_cache_of_something_else_is_refused(made: Callable[..., Case], tmp_path: Path) -> None:
    made().use()
    (facts,) = tmp_path.glob("*/facts.json")
    was = json.loads(facts.read_text())
    write_kept(facts.parent, {facts.name: json.dumps({**was, "teacher": "0123"})})
    with pytest.raises(UserError, match="is another cache: its teacher is 0123"):
        made().use()


def shown(case: Case) -> list[Tensor]:
    return [part for x, y, known in case.batches() for part in (x, y, known["logits"])]


def all_equal(tensors: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["logits-*.0-0", "facts.json"])
def test_a_damaged_file_is_set_aside_and_made_again(
    name: str, damage: str, made: Callable[..., Case], tmp_path: Path
) -> None:
    first = made()
    first.use()
    expected = shown(first)
    (file,) = tmp_path.glob(f"*/{name}")
    content = file.read_bytes()
    DAMAGE[damage](file)
    case = made()
    case.use()
    assert all_equal(shown(case), expected)
    assert file.read_bytes() == content
    if damage == "missing":
        return
    (sentence,) = [said for said in case.said if "so it is set aside as" in said]
    assert sentence.startswith(f"teacher cache: {file} ")
    assert file.with_name(f"{file.name}.damaged").exists()


def test_a_cache_of_an_earlier_version_is_read_without_checksums(
    made: Callable[..., Case], tmp_path: Path
) -> None:
    first = made()
    first.use()
    for file in tmp_path.glob("*/logits-*"):
        file.write_bytes(file.read_bytes()[: -files.CHECKSUM])
    case = made()
    case.use()
    assert all_equal(shown(case), shown(first))
    assert not any("set aside" in said for said in case.said)


def test_runs_that_find_the_same_damage_make_a_block_once_again(
    made: Callable[..., Case], tmp_path: Path
) -> None:
    first = made()
    first.use()
    (file,) = tmp_path.glob("*/logits-*.0-0")
    DAMAGE["one flipped bit"](file)
    cases = [made() for _ in range(3)]
    threads = [threading.Thread(target=case.use) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(all_equal(shown(case), shown(first)) for case in cases)
    assert len(list(tmp_path.glob("*/*.damaged*"))) == 1


def test_a_file_that_is_damaged_later_is_refused(made: Callable[..., Case], tmp_path: Path) -> None:
    case = made()
    case.use()
    file = next(iter(tmp_path.glob("*/logits-*")))
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"is damaged .*: run the same command again, which sets"):
        [case.batches(epoch) for epoch in range(2)]


def test_damage_that_a_loading_process_finds_is_one_sentence(
    made: Callable[..., Case], tmp_path: Path
) -> None:
    case = made("data.num_workers=1", "data.resident=false")
    case.use()
    for file in tmp_path.glob("*/logits-*"):
        file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"is damaged .*: run the same") as caught:
        [case.batches(epoch) for epoch in range(2)]
    assert "Traceback" not in user_message(caught.value)


def test_what_was_stopped_is_gone_on_with(
    made: Callable[..., Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK", 16)
    write, written = filling.write_block, []

    def dying(values: list, view: int, indices: range, *rest: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append((view, indices.start))
        write(values, view, indices, *rest)

    monkeypatch.setattr(filling, "write_block", dying)
    with pytest.raises(KeyboardInterrupt) as stopped:
        made().use()
    assert stopped.tb is not None  # what it holds keeps no block from others
    assert not any(is_locked(lock) for lock in tmp_path.glob("*/*.lock"))

    def counted(values: list, view: int, indices: range, *rest: object) -> None:
        written.append((view, indices.start))
        write(values, view, indices, *rest)

    monkeypatch.setattr(filling, "write_block", counted)
    case = made()
    case.use()
    assert sorted(written) == [(view, start) for view in range(2) for start in (0, 16, 32)]
    x, _, known = case.batches(1)[0]
    with torch.no_grad():
        logits = case.teacher.net(x).logits
    torch.testing.assert_close(known["logits"].float(), logits, **TOLERANCE)


def test_loading_processes_start_once_for_all_blocks_and_read_ahead(
    made: Callable[..., Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK", 16)
    case = made("data.num_workers=1", "data.batch_size=8")
    write, load, loaders, ahead = filling.write_block, case.data.view_loader, [], []

    def free(lock: Path) -> bool:
        try:
            with FileLock(lock, timeout=0, thread_local=False):
                return True
        except Timeout:
            return False

    def counted(batches: Iterable) -> DataLoader:
        loaders.append(load(batches))
        return loaders[-1]

    def watched(*args: Any) -> None:
        ahead.append(sum(not free(lock) for lock in tmp_path.glob("*/*.lock")))
        write(*args)

    monkeypatch.setattr(case.data, "view_loader", counted)
    monkeypatch.setattr(filling, "write_block", watched)
    case.use()
    assert len(loaders) == 2  # one shows the form of the outputs
    # the block that is written, and those of the two batches that the process is asked for ahead
    assert ahead == [2, 3, 2, 2, 2, 1]
    assert all(free(lock) for lock in tmp_path.glob("*/*.lock"))
    for view in range(2):
        for x, _, known in case.batches(view):
            with torch.no_grad():
                logits = case.teacher.net(x).logits
            torch.testing.assert_close(known["logits"].float(), logits, **TOLERANCE)


def test_a_block_that_another_run_is_at_is_waited_for(
    made: Callable[..., Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK", 16)
    made().use()
    (folder,) = tmp_path.iterdir()
    (file,) = folder.glob("logits-*.1-16")
    there = file.rename(folder / "kept")
    lock = FileLock(folder / "1-16.lock", thread_local=False)
    lock.acquire()

    freed = threading.Event()

    def other() -> None:
        there.rename(file)
        freed.set()
        lock.release()

    monkeypatch.setattr(filling, "write_block", lambda *_: pytest.fail("done twice"))
    timer = threading.Timer(0.5, other)
    timer.start()
    made().use()
    assert freed.is_set()
    timer.join()


@pytest.mark.slow
def test_a_cached_run_resumes_to_the_same_bits(tiny: list[str], tmp_path: Path) -> None:
    words = ["method=kd", *tiny, "data.size=32", "augmentation@data.augmentation=crop_flip",
             "teacher.cache=2", "scheduler=none"]  # fmt: skip
    whole = distill(*words, "trainer.max_epochs=4", f"run_dir={tmp_path / 'whole'}").directory
    half = distill(*words, "trainer.max_epochs=2", f"run_dir={tmp_path / 'half'}").directory
    distill(f"resume={half}", "trainer.max_epochs=4")
    weights = [torch.load(d / "last.ckpt", weights_only=True)["state_dict"] for d in (whole, half)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# The highest logits alone


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_highest_logits_and_what_the_others_come_to(temperature: float) -> None:
    """Fixed bug: the others' total was that at T = 1, whatever the temperature of the loss."""
    logits = 5 * torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    parts = compressed(logits, 3, temperature)
    again = expanded(parts | {"confidence": torch.ones(6)}, 10)
    assert set(again) == {"logits", "confidence"}
    p, q = ((z / temperature).softmax(1) for z in (logits, again["logits"]))
    top = logits.topk(3).indices
    torch.testing.assert_close(q.gather(1, top), p.gather(1, top))  # so the rest adds up too
    others = q.scatter(1, top, 0).sort(1).values[:, 3:]
    assert torch.allclose(others, others[:, :1].expand_as(others))
    whole = expanded(compressed(logits, 9, temperature), 10)["logits"]
    torch.testing.assert_close(whole, logits)


def test_the_other_logit_is_cached_for_one_temperature(
    made: Callable[..., Case], tmp_path: Path
) -> None:
    for temperature in (0.5, 1):
        made("teacher.cache_top_k=9", f"method.temperature={temperature}").use()
    names = {path.name.split(".")[0] for path in tmp_path.glob("*/*-*.0-0")}
    assert Counter(name.split("-")[0] for name in names) == {
        "top_logits": 1, "top_classes": 1, "other_logit": 2,
    }  # fmt: skip


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_mass_that_is_kept_is_said_and_too_little_is_refused(temperature: float) -> None:
    logits = torch.tensor([[9.0, 8.0, 0.0, 0.0], [9.0, 9.0, 1.0, 0.0]])
    p = (logits / temperature).softmax(1)
    mass, said = p[:, :2].sum(1).mean().item(), []
    if mass >= 0.99:
        check_mass(logits, 2, temperature, said.append)
        (sentence,) = said
    else:
        with pytest.raises(UserError, match="would change the soft targets") as caught:
            check_mass(logits, 2, temperature, said.append)
        sentence = str(caught.value)
    assert f"the 2 highest of 4 logits hold {mass:.2%} of the softened probability" in sentence
    assert (mass >= 0.99) == (temperature == 1)


def test_a_cache_of_the_highest_logits_gives_whole_ones(
    made: Callable[..., Case], tmp_path: Path
) -> None:
    case = made("method=dual_student", "teacher.cache_top_k=9", "method.temperature=1",
                "confidence@method.confidence=margin")  # fmt: skip
    with torch.no_grad():
        case.teacher.net.head.weight.mul_(20)
    case.use()
    assert case.said[0].startswith("teacher cache: the 9 highest of 10 logits hold ")
    x, _, known = case.batches()[0]
    with torch.no_grad():
        logits = case.teacher.net(x).logits
    torch.testing.assert_close(known["logits"].softmax(1), logits.softmax(1), rtol=1e-2, atol=5e-3)
    names = {path.name.split("-")[0] for path in tmp_path.glob("*/*-*.0-0")}
    assert names == {"top_logits", "top_classes", "other_logit", "confidence"}


def test_what_the_highest_logits_hold_is_judged_by_samples_from_all_over() -> None:
    some = some_of(1000, 32)
    assert len(set(some)) == 32
    assert some == sorted(some) == some_of(1000, 32)
    assert {sample // 100 for sample in some} == set(range(10))  # of ten classes, one after another
    assert some_of(3, 32) == [0, 1, 2]


@pytest.mark.parametrize("top_k", [0, 10])
def test_a_number_of_logits_that_cannot_be_is_refused(
    top_k: int, made: Callable[..., Case]
) -> None:
    with pytest.raises(UserError, match=rf"must be >= 1 and < 10, .* or null, got {top_k}"):
        made(f"teacher.cache_top_k={top_k}").use()


def test_where_samples_are_mixed_it_holds_the_answers_to_the_clean_ones(
    made: Callable[..., Case],
) -> None:
    case = made("mixing@data.mixing=mixup", "method.mixed_targets=true")
    case.data.mixing_sources = True
    case.use()
    cached = case.batches(1)
    case.data.views = Views(2, case.cfg.teacher.seed)
    for (x, y, known), (same_x, same_y, made_of) in zip(cached, case.batches(1), strict=True):
        assert known.keys() == {"partner", "share", "logits"}
        assert torch.equal(x, same_x)
        assert torch.equal(y, same_y)
        with torch.no_grad():
            logits = case.teacher.net(made_of["clean"]).logits
        torch.testing.assert_close(known["logits"].float(), logits, **TOLERANCE)
