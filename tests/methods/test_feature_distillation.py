"""Feature distillation: the sum of its terms, its layers by name, and who owns the regressors."""

import functools
import gc
import weakref
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from helpers import TINY, compose, net, sgd
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning import load
from kd_lightning.base.errors import UserError
from kd_lightning.losses.attention_transfer import AttentionTransfer
from kd_lightning.losses.crd import ContrastiveRepresentation
from kd_lightning.losses.feature_loss import FeatureLoss
from kd_lightning.losses.fitnet import FitNet
from kd_lightning.losses.overhaul import Overhaul
from kd_lightning.losses.relational import Relational
from kd_lightning.losses.vid import VariationalInformation
from kd_lightning.methods.feature_distillation import FeatureDistillation
from kd_lightning.methods.kd import KnowledgeDistillation
from kd_lightning.models.cifar import resnet
from kd_lightning.models.classifier import Classifier
from kd_lightning.models.projected import projected_resnet
from kd_lightning.models.time_series import fcn, inception_time
from kd_lightning.models.timm_nets import timm_classifier
from kd_lightning.running.build import build_data, build_method, number_samples
from kd_lightning.running.preflight import check_run
from kd_lightning.running.run import Result, distill
from kd_lightning.teachers.sources import Teacher, build_net, load_student


def seeded(make, seed: int, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    return make(**options)


def make(*keys: str, **options: object) -> FeatureDistillation:
    """Students of flat inputs with 6 features, a teacher with 9."""
    settings = {"input_shape": (12,), "num_classes": 3, "optimizer": sgd()}
    students = {key: seeded(net, ord(key[0]), features=6) for key in keys or ("student",)}
    nets = {"students": students, "teacher": seeded(net, 0, features=9, hidden=5)}
    return FeatureDistillation(**(nets | settings | options))


def make_images(**options: object) -> FeatureDistillation:
    """Convolutional nets of other widths and other sizes of their maps."""
    return make(
        students={"student": seeded(resnet, 1, depth=8, widths=[4, 4, 6, 8], **IMAGES)},
        teacher=seeded(resnet, 0, depth=14, widths=[4, 8, 8, 12], **IMAGES),
        input_shape=(1, 8, 8),
        **options,
    )


IMAGES = {"num_classes": 3, "in_chans": 1}
SERIES = {"num_classes": 3, "in_chans": 2}
LOSSES = [FitNet, AttentionTransfer, Relational, VariationalInformation, Overhaul,
           ContrastiveRepresentation]  # fmt: skip
STAGES = {"trunk.stage1": "trunk.stage2", "trunk.stage3": "trunk.stage3"}


def batch(*shape: int, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, *(shape or (12,)), generator=generator), torch.arange(size) % 3


def term(method: FeatureDistillation, x: Tensor, y: Tensor) -> float:
    method.training_step((x, y), 0)
    return method.running_means.read_epoch()["student/feature"]


# The loss


def test_loss_is_the_formula() -> None:
    method = make(temperature=3.0, hard_weight=0.1, soft_weight=0.9, feature_weight=7.0)
    (x, y), student = batch(), method.students["student"]
    z, features = student(x)
    teacher = method.teacher(x)
    regressor = method.feature_losses["student"][0].regressor
    made = features @ regressor.weight.T + regressor.bias
    soft = F.kl_div(
        (z / 3).log_softmax(-1), (teacher.logits / 3).softmax(-1), reduction="batchmean"
    )
    expected = 0.1 * F.cross_entropy(z, y) + 0.9 * 9 * soft
    expected += 7 * F.mse_loss(made, teacher.features)
    torch.testing.assert_close(method.training_step((x, y), 0), expected)


def test_layers_add_up() -> None:
    x, y = batch(1, 8, 8)
    one, other = (dict([pair]) for pair in STAGES.items())
    options = {"feature_loss": AttentionTransfer}
    parts = [term(make_images(layers=layers, **options), x, y) for layers in (one, other)]
    both = term(make_images(layers=STAGES, **options), x, y)
    assert both == pytest.approx(sum(parts))
    assert min(parts) > 0


def test_attention_is_that_of_the_named_maps() -> None:
    method = make_images(layers=STAGES, feature_loss=AttentionTransfer)
    (x, y), student, teacher = batch(1, 8, 8), method.students["student"].trunk, method.teacher
    student.train()

    def attention(maps: Tensor) -> Tensor:
        return F.normalize(maps.square().sum(1).flatten(1))

    with torch.no_grad():
        first = student.stage1(student.stem(x))
        theirs = teacher.trunk.stage2(teacher.trunk.stage1(teacher.trunk.stem(x)))
        last = student.stage3(student.stage2(first))
        pairs = [(F.adaptive_avg_pool2d(first, 4), theirs), (last, teacher.trunk.stage3(theirs))]
        expected = sum(F.mse_loss(attention(mine), attention(its)) for mine, its in pairs)
    assert term(method, x, y) == pytest.approx(1000 * expected.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "weight"),
    [(FitNet, 100.0), (AttentionTransfer, 1000.0), (Relational, 1.0),
     (VariationalInformation, 1.0), (Overhaul, 0.001 * 12 * 2 * 2),
     (ContrastiveRepresentation, 0.8)],
)  # fmt: skip
def test_without_a_weight_it_is_the_fields(loss: type[FeatureLoss], weight: float) -> None:
    x, y = batch(1, 8, 8)
    own, stated = (
        make_images(feature_loss=loss, layers=STAGES, **options)
        for options in ({}, {"feature_weight": weight})
    )
    assert own.feature_weight == weight
    assert term(own, x, y) == term(stated, x, y)


@pytest.mark.parametrize("loss", [FitNet, AttentionTransfer, Relational])
def test_a_twin_with_its_teachers_weights_has_nothing_to_imitate(loss: type[FeatureLoss]) -> None:
    teacher = seeded(resnet, 0, depth=14, widths=[4, 8, 8, 12], **IMAGES)
    method = make(
        students={"student": seeded(resnet, 1, depth=14, widths=[4, 8, 8, 12], **IMAGES)},
        teacher=teacher,
        start_from_teacher=True,
        input_shape=(1, 8, 8),
        layers={"trunk.stem.0": "trunk.stem.0"},  # before batch norm, which differs by its mode
        feature_loss=loss,
    )
    assert term(method, *batch(1, 8, 8)) == 0
    assert not list(method.feature_losses.parameters())


def test_without_layers_it_is_kd_to_the_bit() -> None:
    method = make(feature_weight=0.0, soft_weight=0.7, temperature=2.0)
    plain = KnowledgeDistillation(
        students=deepcopy(dict(method.students)), teacher=deepcopy(method.teacher), num_classes=3,
        optimizer=sgd(), soft_weight=0.7, temperature=2.0,
    )  # fmt: skip
    losses = [m.training_step(batch(), 0) for m in (method, plain)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for p, q in zip(method.students.parameters(), plain.students.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


OPTIONS = {
    "feature_loss": Relational,
    "layers": {"head": "trunk"},
    "hard_weight": 0.3,
    "soft_weight": 0.5,
    "feature_weight": 7.0,
    "temperature": 2.0,
    "seed": 1,  # of the regressors
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_loss(name: str) -> None:
    plain, changed = (
        make(**({"soft_weight": 1.0} | o)).training_step(batch(), 0)
        for o in ({}, {name: OPTIONS[name]})
    )
    assert not torch.allclose(plain, changed)


def test_options_of_the_loss_reach_it() -> None:
    losses = [
        make_images(layers=STAGES, feature_loss=functools.partial(AttentionTransfer, power=power))
        for power in (2.0, 1.0)
    ]
    plain, changed = (term(method, *batch(1, 8, 8)) for method in losses)
    assert plain != pytest.approx(changed, rel=1e-2)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_of_the_layers_reaches_what_comes_before_them(loss: type[FeatureLoss]) -> None:
    method = make_images(
        layers={"trunk.stage2": "trunk.stage2"}, feature_loss=loss, hard_weight=0.0
    )
    method.training_step(batch(1, 8, 8), 0).backward()
    trunk = method.students["student"].trunk
    assert all(p.grad.abs().sum() > 0 for p in trunk.stage1.parameters())
    assert all(p.grad is None or not p.grad.any() for p in trunk.stage3.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad.abs().sum() > 0 for p in method.feature_losses.parameters())


# The teacher's classifier


def with_classifier(**options: object) -> FeatureDistillation:
    student = seeded(projected_resnet, 1, depth=8, widths=[4, 4, 6, 8], projected=12, **IMAGES)
    return make(
        students={"student": student},
        teacher=seeded(resnet, 0, depth=14, widths=[4, 8, 8, 12], **IMAGES),
        input_shape=(1, 8, 8),
        reuse_classifier=True,
        feature_weight=1.0,
        hard_weight=0.0,
        **options,
    )


def test_a_reused_classifier_is_the_teachers_and_never_learns() -> None:
    method = with_classifier(layers={"trunk.projector": "trunk.stage3"}).train()
    head, theirs = method.students["student"].head, method.teacher.head
    assert not list(method.feature_losses.parameters())  # the projector is the student's
    optimizer = method.configure_optimizers()
    method.training_step(batch(1, 8, 8), 0).backward()
    optimizer.step()
    assert torch.equal(head.weight, theirs.weight)
    assert torch.equal(head.bias, theirs.bias)
    assert head.weight.data_ptr() != theirs.weight.data_ptr()
    trunk = method.students["student"].trunk
    assert all(p.grad.abs().sum() > 0 for p in trunk.parameters())


def test_a_student_with_the_teachers_features_has_its_logits() -> None:
    method = with_classifier()
    student, teacher = method.students["student"], method.teacher
    features = torch.randn(4, 12)
    assert torch.equal(student.head(features), teacher.head(features))


def test_the_file_of_a_student_with_a_reused_classifier_is_the_whole_student(
    tmp_path: Path,
) -> None:
    run = distill(
        "method=feature_distillation", *TINY, f"outputs={tmp_path}", "scheduler=none",
        f"teacher.store={tmp_path}", "model@method.teacher=resnet8", "method.hard_weight=0",
        "model@method.students.student=resnet8x4_projected", "method.reuse_classifier=true",
        "method.students.student.widths=[4,4,4,4]", "method.students.student.projected=64",
    )  # fmt: skip
    student = load_student(run.directory, "student").eval()
    from_file = load(run.directory)
    x = torch.rand(2, *OmegaConf.load(run.directory / "config.yaml").task.shape)
    torch.testing.assert_close(from_file(x), student(x).logits)
    store = next(tmp_path.glob("teacher-*/config.yaml")).parent
    assert torch.equal(student.head.weight, load_student(store, "student").head.weight)


def test_without_a_projector_a_reused_classifier_is_refused() -> None:
    with pytest.raises(UserError) as refused:
        make_images(reuse_classifier=True)
    assert "give it a projector to the teacher's 12 (model@method.students.student=" in str(
        refused.value
    )


# Students, and what learns with them


def test_each_student_has_pairs_and_regressors_of_its_own() -> None:
    method = make("a", "b", layers={"a": {"trunk": "trunk"}, "b": {"trunk.1": "trunk.1"}})
    (x, _), (a, b) = batch(), (method.feature_losses["a"][0], method.feature_losses["b"][0])
    assert (a.regressor.out_features, b.regressor.out_features) == (9, 5)
    method.training_step(batch(), 0)
    logged = method.running_means.read_epoch()
    first = method.students["b"].trunk[1](x) @ b.regressor.weight.T + b.regressor.bias
    expected = 100 * F.mse_loss(first, method.teacher.trunk[1](x))
    assert logged["b/feature"] == pytest.approx(expected.item())
    groups = {
        group["name"]: group["params"] for group in method.configure_optimizers().param_groups
    }
    for key, loss in (("a", a), ("b", b)):
        expected_parameters = {*method.students[key].parameters(), *loss.parameters()}
        assert set(groups[key]) == expected_parameters


def test_a_regressor_follows_from_seed_student_and_layer_alone() -> None:
    def weights(*keys: str, **options: object) -> dict[str, Tensor]:
        losses = make(*keys, **options).feature_losses
        return {key: losses[key][-1].regressor.weight for key in losses}

    alone = weights("a")["a"]
    torch.rand(7)
    both = weights("a", "b")
    more = weights("a", layers={"head": "trunk", "trunk": "trunk"})["a"]
    assert torch.equal(alone, both["a"])
    assert torch.equal(alone, more)
    assert not torch.equal(alone, both["b"])
    assert not torch.equal(alone, weights("a", seed=1)["a"])


def test_a_regressor_has_its_students_learning_rate() -> None:
    method = make("a", "b", learning_rates={"b": 0.01})
    rates = {g["name"]: g["lr"] for g in method.configure_optimizers().param_groups}
    assert rates == {"a": 0.1, "b": 0.01}


def test_hooks_are_in_no_state_and_record_nothing_outside_a_step() -> None:
    method = make_images(layers=STAGES)
    state = method.state_dict().keys()
    loss = method.training_step(batch(1, 8, 8), 0)
    loss.backward()
    assert method.state_dict().keys() == state
    layers = [method.teacher_layers, *method.student_layers.values()]
    method(batch(1, 8, 8)[0])
    assert not any(one.outputs for one in layers)
    key, *_ = method.students
    copied = deepcopy(method.students[key])
    with method.student_layers[key].record() as outputs:
        copied(batch(1, 8, 8)[0])
    assert outputs == {}


def test_activations_are_freed_with_the_step() -> None:
    seen: list[weakref.ref] = []

    class Watched(FitNet):
        def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
            seen.extend([weakref.ref(student), weakref.ref(teacher)])
            return super().forward(student, teacher)

    method = make_images(layers=STAGES, feature_loss=Watched)
    method.training_step(batch(1, 8, 8), 0).backward()
    gc.collect()
    assert len(seen) == 4
    assert all(activation() is None for activation in seen)


# Any net, unedited


def timm_net(name: str, **options: object) -> nn.Module:
    return timm_classifier(name, num_classes=3, in_chans=3, **options)


@pytest.mark.parametrize("loss", LOSSES)
def test_timm_nets_of_other_families_go_together(loss: type[FeatureLoss]) -> None:
    method = make(
        students={"student": seeded(timm_net, 0, name="mobilenetv3_small_050")},
        teacher=seeded(timm_net, 1, name="resnet18", block_dropout=0.1),
        input_shape=(3, 32, 32),
        layers={"trunk.blocks.1": "trunk.layer2", "trunk.blocks.2.0": "trunk.layer3.0.conv1"},
        feature_loss=loss,
    )
    loss = method.train().training_step(batch(3, 32, 32, size=4), 0)
    loss.backward()
    assert loss.isfinite()
    assert method.students["student"].trunk.conv_stem.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_nets_for_series_go_together(loss: type[FeatureLoss]) -> None:
    method = make(
        students={"student": seeded(fcn, 0, widths=[4, 6], kernels=[5, 3], **SERIES)},
        teacher=seeded(inception_time, 1, width=3, depth=3, kernels=[5, 3], **SERIES),
        input_shape=(2, 15),
        layers={"trunk.stage2": "trunk.stage1", "trunk.stage1.0": "trunk.stage1.main.0"},
        feature_loss=loss,
    )
    method.training_step(batch(2, 15), 0).backward()
    if loss is FitNet:
        assert [type(pair.regressor) for pair in method.feature_losses["student"]] == [
            nn.Conv1d
        ] * 2
    assert method.students["student"].trunk.stage1[0].weight.grad.abs().sum() > 0


def test_transformers_share_their_features_and_not_their_tokens() -> None:
    teacher = functools.partial(seeded, timm_net, 1, name="vit_tiny_patch16_224", input_size=32)
    student = functools.partial(seeded, timm_net, 0, name="resnet18")
    nets = {"input_shape": (3, 32, 32)}
    method = make(students={"student": student()}, teacher=teacher(), **nets)
    assert method.training_step(batch(3, 32, 32, size=4), 0).isfinite()
    with pytest.raises(
        UserError, match=r"'trunk\.blocks\.3' of the teacher returns no single vector"
    ):
        make(students={"student": student()}, teacher=teacher(), layers={"trunk": "trunk.blocks.3"},
             **nets)  # fmt: skip


# Mistakes


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ({"trunk.stage4": "trunk"}, "unknown layer 'trunk.stage4' of student student: expected one"
         " of trunk.stage3, trunk.stage2, trunk.stage1"),
        ({"trunk": "trnk"}, "unknown layer 'trnk' of the teacher: expected one of trunk, "),
        ({"trunk.dropout1": "trunk"}, "layer trunk.dropout1 of student student and layer trunk of "
         "the teacher do not go together: FitNet compares vectors with vectors and maps with maps "
         "of as many dimensions, got a map of 4 x 8 x 8 and a vector of 12; "),
        ({"a": {"trunk": "trunk"}}, "unknown student 'a': expected one of student (method.layers"),
        ({"student": {"trunk": "trunk"}, "trunk": "trunk"}, "got trunk beside student"),
        ({}, "student student needs a pair of layers, got none (method.layers={student:"),
        ({"prepare": "prepare"}, "nothing of student student learns up to its layer prepare, so"),
        ({"student": {}}, "student student needs a pair of layers, got none"),
    ],
)  # fmt: skip
def test_wrong_layers_are_one_sentence(layers: dict, said: str) -> None:
    with pytest.raises(UserError) as refused:
        make_images(layers=layers)
    assert said in str(refused.value)
    assert "method.layers" in str(refused.value)


def test_attention_of_a_flat_layer_is_refused_with_the_layers_that_have_maps() -> None:
    with pytest.raises(UserError) as refused:
        make_images(feature_loss=AttentionTransfer)
    assert str(refused.value) == (
        "layer trunk of student student and layer trunk of the teacher do not go together: "
        "attention transfer compares maps, which have channels and more than one position, got a "
        "vector of 8 and a vector of 12; student student has trunk.stem, trunk.stage1, "
        "trunk.stage2, trunk.stage3, the teacher trunk.stem, trunk.stage1, trunk.stage2, "
        "trunk.stage3 (method.layers=… or feature_loss@method.feature_loss=…)"
    )
    with pytest.raises(
        UserError, match="has no layer for this loss, the teacher no layer for this loss"
    ):
        make(feature_loss=AttentionTransfer)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"feature_weight": -1.0},
            r"method.feature_weight must be >= 0 or null, got -1.0",
        ),
        ({"hard_weight": 0.0, "feature_weight": 0.0}, "one of hard_weight, soft_weight, feature_w"),
        ({"temperature": 0.0}, r"method\.temperature"),
        ({"input_shape": (3, 5)}, r"a net takes none of \(3, 5\) \(method.input_shape=…\)"),
        (
            {"feature_loss": functools.partial(Relational, angle_weight=-1.0)},
            r"got 25.0 and -1.0 \(method.feature_loss.…=…\)",
        ),
    ],
)
def test_bad_values_name_their_key(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(**options)


# From the command line

# choice -> its tensors that learn, of one pair of layers
CHOICES = {"fitnet": 2, "attention_transfer": 0, "relational": 0, "vid": 4, "overhaul": 3, "crd": 4,
           "crd_memory": 4}  # fmt: skip


@pytest.mark.parametrize(("choice", "num_learning"), CHOICES.items())
def test_every_choice_trains_stages_named_on_the_command_line(
    choice: str, num_learning: int, tmp_path: Path
) -> None:
    cfg = compose(
        "method=feature_distillation", "data=synthetic", "data.num_train=32", "data.num_test=16",
        "data.batch_size=16", "teacher.batch_size=16", "model@method.teacher=resnet8",
        "model@method.students.student=wrn_16_2",
        f"feature_loss@method.feature_loss={choice}",
        "method.layers={trunk.stage2: trunk.stage2, trunk.stage3: trunk.stage3}",
    )  # fmt: skip
    data = build_data(cfg)
    check_run(cfg, data)
    teacher = build_net(cfg.method.teacher, 1, "teacher")
    method = build_method(cfg, Teacher(teacher, "a test", "resnet8"))
    assert method.layers["student"] == {f"trunk.stage{n}": f"trunk.stage{n}" for n in (2, 3)}
    number_samples(data, method)
    Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    ).fit(method, datamodule=data)  # fmt: skip
    regressors = len(list(method.feature_losses.parameters()))
    assert regressors == 2 * num_learning


def test_a_wrong_layer_is_told_before_a_teacher_is_trained() -> None:
    cfg = compose("method=feature_distillation", "data=synthetic", "method.layers={trnk: trunk}")
    with pytest.raises(UserError, match="unknown layer 'trnk' of student student: expected one of"):
        check_run(cfg, build_data(cfg))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Result:
    outputs = tmp_path_factory.mktemp("features")
    return distill("method=feature_distillation", *TINY, f"outputs={outputs}",
                   f"teacher.store={store}", "scheduler=none")  # fmt: skip


def test_the_students_file_is_the_student_alone_and_last_has_the_regressor_too(
    whole: Result,
) -> None:
    best, last = (
        torch.load(whole.directory / name, weights_only=True)["state_dict"]
        for name in ("best-student.ckpt", "last.ckpt")
    )
    student = load_student(whole.directory, "student")
    assert isinstance(student, Classifier)
    assert best.keys() == student.state_dict().keys()
    extra = {name for name in last if not name.startswith("students.student.")}
    assert extra == {f"feature_losses.student.0.regressor.{name}" for name in ("weight", "bias")}
    assert whole.metrics["nets"]["student"]["parameters"] == sum(
        p.numel() for p in student.parameters()
    )


def test_a_resumed_run_ends_with_the_bits_of_an_undisturbed_one(
    whole: Result, tmp_path: Path, store: Path
) -> None:
    begun = distill("method=feature_distillation", *TINY, f"outputs={tmp_path}",
                    f"teacher.store={store}", "scheduler=none", "trainer.max_epochs=1")  # fmt: skip
    gone_on = distill(f"resume={begun.directory}", "trainer.max_epochs=2")
    ends = [
        torch.load(run.directory / "last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, gone_on)
    ]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())


# The memory of CRD

MEMORY = ["method=feature_distillation", "feature_loss@method.feature_loss=crd_memory",
          "method.feature_loss.num_negatives=20", "method.feature_loss.embedding_size=8",
          "scheduler=none"]  # fmt: skip


@pytest.fixture(scope="module")
def remembered(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Result:
    outputs = tmp_path_factory.mktemp("memory")
    return distill(*TINY, *MEMORY, f"outputs={outputs}", f"teacher.store={store}")


def memory_of(run: Result) -> dict[str, Tensor]:
    state = torch.load(run.directory / "last.ckpt", weights_only=True)["state_dict"]
    return {name.split(".")[-1]: v for name, v in state.items() if "feature_losses" in name}


def test_a_memory_has_a_slot_for_each_training_sample_in_the_checkpoint(remembered) -> None:
    memory = memory_of(remembered)["memory"]
    assert memory.shape == (2, 86, 8)  # a tenth of 96 is val
    assert memory.nbytes == 8 * 8 * 86
    lengths = memory.norm(dim=2)
    assert (lengths - 1).abs().amin(0).lt(1e-5).sum() >= 80  # an epoch drops its last 6 samples
    student = torch.load(remembered.directory / "best-student.ckpt", weights_only=True)
    assert not any("memory" in name for name in student["state_dict"])


def test_a_run_with_a_memory_resumes_to_the_bits_of_an_undisturbed_one(
    remembered, tmp_path: Path, store: Path
) -> None:
    begun = distill(*TINY, *MEMORY, f"outputs={tmp_path}", f"teacher.store={store}",
                    "trainer.max_epochs=1")  # fmt: skip
    after_one = memory_of(begun)["memory"]
    gone_on = distill(f"resume={begun.directory}", "trainer.max_epochs=2")
    assert not torch.equal(after_one, memory_of(gone_on)["memory"])
    ends = [
        torch.load(run.directory / "last.ckpt", weights_only=True)["state_dict"]
        for run in (remembered, gone_on)
    ]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())


def test_averages_of_students_go_with_a_memory(tmp_path: Path, store: Path) -> None:
    run = distill(*TINY, *MEMORY, f"outputs={tmp_path}", f"teacher.store={store}",
                  "callbacks=ema", "trainer.max_epochs=1")  # fmt: skip
    assert run.metrics["epochs"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mixing@data.mixing=mixup"], r"data.mixing: its memory has a slot for each sample"),
        (["data.unlabeled=synthetic"], r"data.unlabeled=synthetic: its losses need the label"),
        (["method.feature_loss.num_negatives=0"], r"num_negatives must be >= 1, got 0 \(method"),
    ],
)
def test_what_a_memory_cannot_index_is_one_sentence(words: list[str], said: str) -> None:
    cfg = compose(*TINY, *MEMORY, *words)
    data = build_data(cfg)
    with pytest.raises(UserError, match=said):
        check_run(cfg, data)


def test_a_memory_of_several_devices_needs_every_image() -> None:
    cfg = compose(*MEMORY, "hardware=ddp", "hardware.accelerator=cpu", "hardware.devices=2")
    data = build_data(cfg)
    check_run(cfg, data)
    data.skip_bad = True  # as of files with data.on_bad_image=skip
    with pytest.raises(UserError, match=r"no image may be left out: set data.on_bad_image=error"):
        check_run(cfg, data)
