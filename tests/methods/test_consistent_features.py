"""Consistent features: what is matched, when, with which student, and what the matching is for."""

from copy import copy, deepcopy
from pathlib import Path

import pytest
import torch
from helpers import TINY, compose, net, of_method, sgd
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.base.interrupts import Interrupted
from kd_lightning.base.streams import stream_seed
from kd_lightning.methods.consistent_features import ConsistentFeatures, MatchChannels
from kd_lightning.methods.kd import KnowledgeDistillation
from kd_lightning.methods.label_stage import LearnLabels
from kd_lightning.methods.supervised import Supervised
from kd_lightning.models.cifar import resnet
from kd_lightning.models.time_series import fcn
from kd_lightning.running.build import build_data, build_method
from kd_lightning.running.stages import RESULT, complete_stages, directory_of, fit_next_stage
from kd_lightning.teachers.sources import Teacher, build_net

IMAGES = {"num_classes": 3, "in_chans": 1}
WORDS = ["method=consistent_features", "data=synthetic", "data.num_train=64", "data.num_test=16",
         "data.batch_size=16", "model@method.teacher=resnet8",
         "model@method.students.student=resnet8",
         "method.students.student.widths=[4,4,6,8]"]  # fmt: skip


def seeded(make, seed: int, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    return make(**options)


def make(**options: object) -> ConsistentFeatures:
    """A student of flat inputs with 6 features, a teacher with 9."""
    nets = {
        "students": {"student": seeded(net, 1, features=6)},
        "teacher": seeded(net, 0, features=9),
    }
    settings = {"input_shape": (12,), "num_classes": 3, "optimizer": sgd()}
    return ConsistentFeatures(**(nets | settings | options))


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(8, 12, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3


def with_channels_in_order(student: nn.Module, order: Tensor) -> nn.Module:
    """A resnet8 like the student whose last feature map has its channels in another order."""
    teacher = deepcopy(student)
    (block,) = teacher.trunk.stage3
    with torch.no_grad():
        for module in (*block.main[-2:], *block.shortcut):
            for values in (*module.parameters(), *module.buffers()):
                values.copy_(values[order] if values.ndim else values)
        teacher.head.weight.copy_(teacher.head.weight[:, order])
    return teacher.eval()


class Case:
    """A run up to its stage, with a teacher made of its student or an untrained one."""

    def __init__(self, tmp_path: Path, *words: str, order: Tensor | None = None) -> None:
        self.cfg = compose(*WORDS, f"outputs={tmp_path}", *words)
        self.data = build_data(self.cfg)
        if order is None:
            teacher = build_net(self.cfg.method.teacher, 1, "teacher")
        else:
            seed = self.cfg.seed
            student = build_net(self.cfg.method.students.student, seed, "student")
            student = build_method(self.cfg, Teacher(student, "", "")).students["student"]
            teacher = with_channels_in_order(student, order)
        self.method = build_method(self.cfg, Teacher(teacher, "a test", "resnet8"))
        self.stage = self.method.stage()
        self.directory = directory_of(self.cfg, self.data, self.stage)

    def complete(self) -> ConsistentFeatures:
        self.method.stage = lambda: self.stage
        complete_stages(self.cfg, self.data, self.method, apart=pytest.fail, say=lambda text: None)
        return self.method

    def channels(self) -> Tensor:
        return self.method.feature_losses["student"][0].channels


# The matching


@pytest.mark.parametrize("matching", ["one_to_one", "greedy"])
def test_a_teacher_with_the_students_channels_in_another_order_is_found_out(
    matching: str, tmp_path: Path
) -> None:
    order = torch.tensor([3, 0, 7, 4, 2, 6, 1, 5])
    case = Case(tmp_path, f"method.matching={matching}", order=order)
    method = case.complete().eval()
    assert torch.equal(case.channels()[order], torch.arange(8))
    x, y = next(iter(case.data.loader("train")))
    terms = method.losses(x, y, None, 0.0).terms
    assert terms["student/feature"] < 1e-10
    assert terms["student/soft"] < 1e-6  # of another order, but the same net


def test_a_student_like_its_teacher_is_matched_to_itself(tmp_path: Path) -> None:
    case = Case(tmp_path, order=torch.arange(8))
    method = case.complete().eval()
    assert torch.equal(case.channels(), torch.arange(8))
    x, y = next(iter(case.data.loader("train")))
    assert method.losses(x, y, None, 0.0).terms["student/feature"] == 0


def test_the_controls_ignore_the_order(tmp_path: Path) -> None:
    order = torch.tensor([3, 0, 7, 4, 2, 6, 1, 5])
    found = {}
    for matching in ("identity", "random"):
        case = Case(tmp_path, f"method.matching={matching}", order=order)
        case.complete()
        found[matching] = case.channels()
    assert torch.equal(found["identity"], torch.arange(8))
    assert torch.equal(found["random"].sort().values, torch.arange(8))
    assert not torch.equal(found["random"][order], torch.arange(8))
    other = Case(tmp_path, "method.matching=random", "seed=1", order=order).channels()
    assert not torch.equal(found["random"], other)


def test_it_looks_at_as_many_samples_as_asked_for_and_changes_no_net(tmp_path: Path) -> None:
    for words, num in ((["method.match_samples=24"], 24), ([], 48)):
        case = Case(tmp_path, *words)
        nets = [case.method.students, case.method.teacher]
        before = [{k: v.clone() for k, v in one.state_dict().items()} for one in nets]
        case.method.train()
        method = case.complete()
        assert case.stage.num_seen == sum(len(r["student"][0][0]) for r in case.stage.seen) == num
        for one, was in zip(nets, before, strict=True):
            assert all(torch.equal(v, was[k]) for k, v in one.state_dict().items())
        assert all(part.training for part in method.students.modules())
        assert all(p.requires_grad for p in method.students.parameters())
        kept = load_file(case.directory / RESULT)
        assert list(kept) == ["matched.student.0.channels"]
        assert torch.equal(kept["matched.student.0.channels"], case.channels())
        epochs = (case.directory / "epochs.csv").read_text().splitlines()
        assert epochs[0] == "epoch,step,student/correlation"
        assert 0 < float(epochs[1].split(",")[2]) <= 1


def test_it_is_done_once_and_again_for_what_shapes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Case(tmp_path)
    first.complete()
    monkeypatch.setattr(MatchChannels, "training_step", lambda *_: pytest.fail("done twice"))
    again = Case(tmp_path)
    again.complete()
    assert torch.equal(again.channels(), first.channels())
    for word in ("method.matching=greedy", "method.match_samples=24",
                 "method.layers={trunk: trunk}"):  # fmt: skip
        assert Case(tmp_path, word).directory != first.directory
    assert Case(tmp_path, "method.temperature=2").directory == first.directory
    other = Case(tmp_path)
    assert directory_of(other.cfg, other.data, other.method.stage()) == first.directory
    with torch.no_grad():
        other.method.students["student"].trunk.stem[0].weight.add_(1)
    assert directory_of(other.cfg, other.data, other.method.stage()) != first.directory


# The labels before it


class AfterLabels(Case):
    """A run up to its stages, of which the first trains the student for two epochs."""

    def __init__(self, tmp_path: Path, *words: str) -> None:
        recipe = ["method.match_with=labels", "method.stage_recipe.run_epochs=2"]
        super().__init__(tmp_path, *recipe, *words)
        self.said: list[str] = []

    @property
    def student(self) -> nn.Module:
        return self.method.students["student"]

    def complete(self) -> ConsistentFeatures:
        complete_stages(self.cfg, self.data, self.method, apart=pytest.fail, say=self.said.append)
        return self.method


def kept(tmp_path: Path, stage: str) -> list[Path]:
    return sorted(tmp_path.glob(f"stages/consistent_features-{stage}-*/{RESULT}"))


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


def test_students_learn_labels_alone_before_they_are_matched(tmp_path: Path) -> None:
    case = AfterLabels(tmp_path)
    net = deepcopy(case.student)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    of_stage = copy(case.data)  # other batches than those of the run that follows
    of_stage.seed = stream_seed(case.data.seed, "stage", "labels")
    loader = of_stage.loader("train")
    assert not torch.equal(next(iter(loader))[0], next(iter(case.data.loader("train")))[0])
    for epoch in range(2):
        optimizer.param_groups[0]["lr"] = (0.05, 0.005)[epoch]
        loader.batch_sampler.sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(x).logits, y).backward()
            optimizer.step()
    method = case.complete()
    assert_same_weights(case.student, net)
    assert case.student.training
    assert all(p.requires_grad for p in case.student.parameters())
    loader = case.data.loader("train")
    rows = [method.rows(x)["student"][0] for x, _ in loader]
    again = deepcopy(method.feature_losses["student"][0])
    again.match(*(torch.cat(rows) for rows in zip(*rows, strict=True)))
    assert torch.equal(case.channels(), again.channels)


def test_a_matching_and_its_controls_begin_with_the_same_students(tmp_path: Path) -> None:
    matchings = ("one_to_one", "learned", "identity", "random")
    cases = [AfterLabels(tmp_path, f"method.matching={matching}") for matching in matchings]
    for case in cases:
        case.complete()
        assert_same_weights(case.student, cases[0].student)
    assert len(kept(tmp_path, "labels")) == 1
    assert len(kept(tmp_path, "channel-matching")) == len(matchings)
    others = ("method.stage_recipe.learning_rate=0.01", "method.students.student.dropout=0.5")
    for count, words in enumerate(others, 2):  # the second one has the same first weights
        AfterLabels(tmp_path, words).complete()
        assert len(kept(tmp_path, "labels")) == count


def test_students_that_were_stopped_while_they_learn_labels_end_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "method.students.student.dropout=0.5"
    whole = AfterLabels(tmp_path / "whole", words)
    whole.complete()
    step = LearnLabels.training_step

    def stopping(self: LearnLabels, batch: list, batch_idx: int) -> Tensor:
        if self.current_epoch == 1:
            raise Interrupted(2)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(LearnLabels, "training_step", stopping)
        with pytest.raises(Interrupted):
            AfterLabels(tmp_path / "stopped", words).complete()
    again = AfterLabels(tmp_path / "stopped", words)
    again.complete()
    assert again.said[0].startswith("labels: resumed in ")
    assert_same_weights(again.student, whole.student)


def test_where_ranks_come_from_outside_both_stages_are_done_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = AfterLabels(tmp_path / "here")
    here.complete()
    there = AfterLabels(tmp_path / "there")
    found = []

    def apart(cfg: object) -> None:
        other = AfterLabels(tmp_path / "there")
        fit_next_stage(other.cfg, other.data, other.method, other.said.append)
        found.append([len(kept(tmp_path / "there", s)) for s in ("labels", "channel-matching")])

    monkeypatch.setattr("kd_lightning.running.stages.launcher_rank", lambda: 0)
    complete_stages(there.cfg, there.data, there.method, apart=apart, say=there.said.append)
    assert found == [[1, 0], [1, 1]]
    assert_same_weights(there.method, here.method)


# The layers


def test_the_last_feature_maps_are_matched_or_the_classifiers_inputs_without_maps() -> None:
    teacher = seeded(resnet, 0, depth=14, widths=[4, 8, 8, 12], **IMAGES)
    students = {
        "a": seeded(resnet, 1, depth=8, widths=[4, 4, 6, 8], **IMAGES),
        "b": seeded(net, 2, inputs=64, features=5),
    }
    method = make(students=students, teacher=teacher, input_shape=(1, 8, 8))
    assert method.layers == {"a": {"trunk.dropout3": "trunk.dropout3"}, "b": {"trunk": "trunk"}}
    assert [len(method.feature_losses[key][0].channels) for key in "ab"] == [8, 5]
    named = make(
        students=students, teacher=teacher, input_shape=(1, 8, 8), layers={"trunk": "trunk.stage2"}
    )
    assert named.feature_losses["a"][0].channels.tolist() == list(range(8))
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    shapes = [[tuple(layer.shape) for layer in method.rows(x)[key][0]] for key in "ab"]
    assert shapes == [[(4, 8), (4, 12)], [(4, 5), (4, 12)]]


def test_series_are_matched_too() -> None:
    nets = [seeded(fcn, n, num_classes=3, in_chans=2, widths=[4, 6, w], kernels=[3, 3, 3])
            for n, w in ((0, 9), (1, 5))]  # fmt: skip
    method = make(students={"student": nets[1]}, teacher=nets[0], input_shape=(2, 16))
    ((mine, theirs),) = method.layers["student"].items()
    assert mine == theirs != "trunk"
    x = torch.randn(4, 2, 16, generator=torch.Generator().manual_seed(1))
    assert method.training_step((x, torch.arange(4) % 3), 0).isfinite()


# The loss


@pytest.mark.parametrize("matching", ["one_to_one", "learned"])
def test_loss_is_the_formula(matching: str) -> None:
    method = make(
        matching=matching, temperature=3.0, hard_weight=0.1, soft_weight=0.9, feature_weight=7.0
    )
    (x, y), loss = batch(), method.feature_losses["student"][0]
    loss.match(*method.rows(x)["student"][0])
    z, features = method.students["student"](x)
    teacher = method.teacher(x)
    target = teacher.features[:, loss.channels]
    if matching == "learned":
        target = teacher.features @ loss.weights.T
    soft = F.kl_div(
        (z / 3).log_softmax(-1), (teacher.logits / 3).softmax(-1), reduction="batchmean"
    )
    expected = 0.1 * F.cross_entropy(z, y) + 0.9 * 9 * soft + 7 * F.mse_loss(features, target)
    torch.testing.assert_close(method.training_step((x, y), 0), expected)


@pytest.mark.parametrize("soft", [0.7, 0.0])
def test_without_features_it_is_kd_and_without_a_teacher_labels_alone_to_the_bit(soft) -> None:
    method = make(feature_weight=0.0, soft_weight=soft)
    same = {"students": deepcopy(dict(method.students)), "num_classes": 3, "optimizer": sgd()}
    if soft:
        plain = KnowledgeDistillation(teacher=deepcopy(method.teacher), soft_weight=soft, **same)
    else:
        plain = Supervised(**same)
    losses = [m.training_step(batch(), 0) for m in (method, plain)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for p, q in zip(method.students.parameters(), plain.students.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_a_matching_shifts_no_student_and_nothing_of_it_learns() -> None:
    method = make(matching="random", hard_weight=0.0, soft_weight=0.0)
    method.training_step(batch(), 0).backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad.abs().sum() > 0 for p in method.students["student"].trunk.parameters())
    assert not list(method.feature_losses.parameters())
    (group,) = method.configure_optimizers().param_groups
    assert len(group["params"]) == len(list(method.students.parameters()))


# What a person can get wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matching": "best"}, r"unknown matching 'best': .*method.matching=…"),
        ({"match_with": "trained"}, r"unknown start of the students 'trained': .*pretrained"),
        ({"match_with": "labels"}, r"needs a stage with epochs: .*method.stage_recipe.share"),
        (
            {"match_with": "pretrained"},
            r"student begins with random ones \(method.students.student",
        ),
        ({"match_samples": 1}, r"method.match_samples must be >= 2, got 1"),
        ({"ridge": -1.0}, r"method.ridge must be >= 0, got -1.0"),
        ({"feature_weight": -1.0}, r"feature_weight must be >= 0, got -1.0"),
        ({"layers": {"trunk.9": "trunk"}}, r"unknown layer 'trunk.9' of student student: .*"),
        ({"input_shape": (3,)}, r"input_shape must be that of a sample"),
    ],
)
def test_bad_values_end_in_a_sentence_with_the_key(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**options)


def test_a_student_that_begins_as_its_teacher_is_trained() -> None:
    teacher = seeded(net, 0, features=6)
    make(teacher=teacher, start_from_teacher=True, match_with="pretrained")


# A run


def test_a_trained_student_is_matched_with_its_weights_and_the_matching_is_in_the_checkpoint(
    tmp_path: Path, store: Path
) -> None:
    words = [*TINY, f"outputs={tmp_path}", "trainer.max_epochs=1"]
    labels = (
        distill("method=supervised", *of_method("supervised", words)).directory
        / "best-student.ckpt"
    )
    words += ["method=consistent_features", f"teacher.store={store}"]
    words += [f"method.students.student.weights={labels}", "method.match_with=pretrained"]
    run = distill(*words).directory
    (result,) = (tmp_path / "stages").glob("*/result.safetensors")
    channels = load_file(result)["matched.student.0.channels"]
    state = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["feature_losses.student.0.channels"], channels)
    assert not torch.equal(channels, torch.arange(len(channels)))
    students = torch.load(run / "best-student.ckpt", weights_only=True)["state_dict"]
    assert not any("feature_losses" in name for name in students)
