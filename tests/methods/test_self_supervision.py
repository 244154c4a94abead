"""SSKD against its formula, written image by image, and the laws that follow from it."""

import pytest
import torch
from helpers import net, sgd
from methods.test_contract import built, state_of
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from kd_lightning.base.errors import UserError
from kd_lightning.data.augmentation import RandomCrop
from kd_lightning.methods.kd import KnowledgeDistillation
from kd_lightning.methods.self_supervision import SelfSupervision
from kd_lightning.methods.stage_recipe import StageRecipe
from kd_lightning.methods.supervised import Supervised

RECIPE = StageRecipe(run_epochs=8, learning_rate=0.05)
WEIGHTS = ("hard_weight", "soft_weight", "transformed_weight", "similarity_weight")
TERMS = {"hard": 0.1, "soft": 0.9, "transformed": 2.7, "similarity": 10.0}
LABELS_ALONE = {"hard_weight": 1.0, **dict.fromkeys(WEIGHTS[1:], 0.0)}


def make(**options: object) -> SelfSupervision:
    """A method for images of 3 x 2 x 2, with a teacher that is sure of some things."""
    torch.manual_seed(0)
    student, teacher = net(), net(features=9, hidden=5)
    with torch.no_grad():
        teacher.head.weight.mul_(9)
    settings = {
        "students": {"student": student},
        "teacher": teacher,
        "input_shape": (3, 2, 2),
        "stage_recipe": RECIPE,
    }
    return SelfSupervision(num_classes=3, optimizer=sgd(), **(settings | options))


def batch(size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 3, 2, 2, generator=generator), torch.arange(size) % 3


def terms(method: SelfSupervision, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    found = method.losses(x, y, None, 1.0).terms
    return {name.removeprefix("student/"): value for name, value in found.items()}


def kept(scores: list[float], true: list[int], ratio: float) -> list[bool]:
    """The error-level ranking with Python's lists."""
    levels = [sum(s > row[t] for s in row) for row, t in zip(scores, true, strict=True)]
    gaps = [max(row) - row[t] for row, t in zip(scores, true, strict=True)]
    wrong = sorted((i for i in range(len(true)) if levels[i]), key=lambda i: (levels[i], gaps[i]))
    chosen = wrong[: int(ratio * len(wrong))]
    return [levels[i] == 0 or i in chosen for i in range(len(true))]


def expected(method: SelfSupervision, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The terms image by image: row 3 i + v is view v + 1 of image i, as in the released code."""
    normal = x
    turned = torch.stack([torch.rot90(one, v, (1, 2)) for one in x for v in (1, 2, 3)])
    of_row = torch.arange(len(x)).repeat_interleave(3)
    student, teacher = method.students["student"], method.teacher

    def kl(ours: Tensor, theirs: Tensor, t: float, rows: list[bool]) -> Tensor:
        loss = F.kl_div((ours / t).log_softmax(1), (theirs / t).softmax(1), reduction="none")
        return t**2 * loss.sum(1)[rows].mean()

    def table(of_net: nn.Module, head: nn.Module) -> Tensor:
        a, b = (head(of_net(views).features) for views in (turned, normal))
        return F.cosine_similarity(a[:, None], b[None], dim=2)

    logits = teacher(turned).logits
    theirs = table(teacher, method.fitted_projection)
    ours = table(student, method.projections["student"])
    t, s = method.temperature, method.similarity_temperature
    classes = y[of_row].tolist()
    rows = kept(logits.tolist(), classes, method.transformed_ratio)
    table_rows = kept(theirs.tolist(), of_row.tolist(), method.similarity_ratio)
    assert 0 < sum(table_rows) < len(table_rows), "the case must leave rows out"
    return {
        "hard": F.cross_entropy(student(normal).logits, y),
        "soft": kl(student(normal).logits, teacher(normal).logits, t, [True] * len(x)),
        "transformed": kl(student(turned).logits, logits, t, rows),
        "similarity": kl(ours, theirs, s, table_rows),
    }


@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_every_term_is_its_formula_image_by_image(ratio: float) -> None:
    method = make(transformed_ratio=ratio).double()
    x, y = batch()[0].double(), batch()[1]
    found, by_hand = terms(method, x, y), expected(method, x, y)
    assert found.keys() == by_hand.keys()
    for name, weight in TERMS.items():
        torch.testing.assert_close(
            found[name].double(), weight * by_hand[name], rtol=1e-5, atol=1e-5
        )


def test_a_student_that_is_its_teacher_learns_from_the_labels_alone() -> None:
    method = make(students={"student": net(features=9, hidden=5)})
    method.students["student"].load_state_dict(method.teacher.state_dict())
    method.projections["student"].load_state_dict(method.fitted_projection.state_dict())
    found = terms(method, *batch())
    assert found["hard"] > 0
    for name in ("soft", "transformed", "similarity"):
        torch.testing.assert_close(found[name], torch.zeros(()), rtol=0, atol=1e-4)


def test_the_order_of_the_images_does_not_matter() -> None:
    method, (x, y) = make(), batch()
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    for a, b in zip(
        terms(method, x, y).values(), terms(method, x[order], y[order]).values(), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_the_length_of_projected_features_does_not_matter() -> None:
    method = make()
    before = terms(method, *batch())
    with torch.no_grad():
        for projection, factor in (
            (method.projections["student"], 7),
            (method.fitted_projection, 3),
        ):
            for p in projection[2].parameters():
                p.mul_(factor)
    torch.testing.assert_close(terms(method, *batch()), before)


def test_gradients_go_to_the_student_and_its_projection_alone() -> None:
    method = make()
    method.freeze_module(method.fitted_projection)  # as a finished stage does
    method.training_step(batch(), 0).backward()
    assert all(p.grad is not None for p in method.students.parameters())
    assert all(p.grad.abs().sum() > 0 for p in method.projections.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad is None for p in method.fitted_projection.parameters())


def test_without_the_views_terms_it_is_kd_and_without_a_teacher_supervised() -> None:
    def trained(method: KnowledgeDistillation) -> dict[str, Tensor]:
        for step in range(3):
            optimizer = method.make_optimizer(list(method.students.parameters()))
            method.training_step(batch(), step).backward()
            optimizer.step()
            optimizer.zero_grad()
        return state_of(method.students)

    def same_nets() -> dict[str, object]:
        one = make()
        return {"students": dict(one.students.items()), "teacher": one.teacher}

    common = {"num_classes": 3, "optimizer": sgd()}
    kd = KnowledgeDistillation(**same_nets(), **common, hard_weight=0.1, soft_weight=0.9)
    labels = Supervised(students=same_nets()["students"], **common)
    ours = make(transformed_weight=0.0, similarity_weight=0.0), make(**LABELS_ALONE)
    for mine, theirs in zip(ours, (kd, labels), strict=True):
        a, b = trained(mine), trained(theirs)
        assert all(torch.equal(a[name], b[name]) for name in b)
        assert mine.stage() is None
        assert mine.own_modules() == {}
    assert ours[0].teacher_rows, ours[1].teacher_rows == (1, 0)


def test_the_control_has_the_labels_of_all_views() -> None:
    method, (x, y) = make(hard_views="all", **LABELS_ALONE), batch()
    views = torch.cat([torch.rot90(x, turns, (2, 3)) for turns in range(4)])
    loss = F.cross_entropy(method.students["student"](views).logits, y.repeat(4))
    torch.testing.assert_close(method.training_step((x, y), 0), loss)
    assert method.teacher_rows == 0


@pytest.mark.parametrize("name", [*WEIGHTS, "temperature", "similarity_temperature",
                                  "transformed_ratio", "similarity_ratio"])  # fmt: skip
def test_every_number_changes_the_loss_and_is_checked(name: str) -> None:
    losses = [make(**{name: value}).training_step(batch(), 0) for value in (0.3, 0.6)]
    assert losses[0] != losses[1]
    with pytest.raises(UserError, match=rf"method.{name} must be .* got -1"):
        make(**{name: -1})


def test_a_teacher_that_is_always_wrong_and_a_ratio_of_zero_teach_nothing_of_the_views() -> None:
    method, (x, y) = make(transformed_ratio=0.0), batch()
    with torch.no_grad():
        method.teacher.head.weight.zero_()
        method.teacher.head.bias.copy_(torch.tensor([0.0, 1, 2]))
    y = y.clamp_max(1)  # of classes that the teacher never says
    found = terms(method, x, y)
    assert found["transformed"] == 0
    assert found["transformed"].requires_grad
    method.training_step((x, y), 0).backward()
    assert all(p.grad.isfinite().all() for p in method.students.parameters())


def test_a_batch_of_one_sample_is_finite_and_has_nothing_to_compare() -> None:
    method = make()
    found = terms(method, *batch(1))
    assert found["similarity"] == 0
    loss = method.training_step(batch(1), 0)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_a_series_has_the_views_that_are_named() -> None:
    method = make(input_shape=(2, 6), series_views=["reverse", "jitter"])
    assert (method.num_views, method.teacher_rows) == (3, 3)
    x = torch.randn(4, 2, 6)
    views = method.views_of(x)
    assert views.shape == (12, 2, 6)
    assert torch.equal(views[:8], torch.cat([x, x.flip(2)]))
    torch.rand(5)  # random views follow from the seed and the step
    assert torch.equal(method.views_of(x), views)
    assert not torch.equal(make(input_shape=(2, 6), series_views=["reverse", "jitter"],
                                seed=1).views_of(x), views)  # fmt: skip
    assert terms(method, x, torch.arange(4) % 3).keys() == TERMS.keys()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"input_shape": (3, 2, 4)}, r"rotations need square images, got .*\(3, 2, 4\)"),
        ({"input_shape": (2, 6), "series_views": ["revers"]},
         r"unknown view of a series 'revers': did you mean reverse\? \(method\.series_views=…\)"),
        ({"input_shape": (2, 6), "series_views": []}, r"got none \(method\.series_views=…\)"),
        ({"hard_views": "every"}, r"'every': expected one of all, normal \(method\.hard_views=…"),
        ({"view_augmentation": v2.RandomCrop(2)}, r"RandomCrop transforms single .*view_augment"),
    ],
)  # fmt: skip
def test_what_a_person_gets_wrong_is_one_sentence(options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make(**options)


def test_each_view_is_augmented_by_itself_in_training_and_in_the_stage() -> None:
    crop = RandomCrop(size=2, padding=1)
    method, plain = make(view_augmentation=crop), make()
    x = torch.rand(32, 3, 2, 2) + 1
    views, rotated = method.views_of(x), plain.views_of(x)
    assert views.shape == rotated.shape
    moved = (views != rotated).flatten(1).any(1).view(4, 32)
    assert 0 < moved[0].sum() < 32
    assert not torch.equal(moved[0], moved[1])
    assert "compile" in method.unsupported()
    assert "compile" not in plain.unsupported()
    assert method.stage().view_augmentation is crop


@pytest.mark.parametrize(
    ("word", "reason"),
    [("teacher.cache=2", "the teacher sees several views"), ("mixing@data.mixing=mixup", "rank")],
)
def test_what_does_not_go_together_is_refused_in_one_sentence(word: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"method=self_supervision does not support .*{reason}"):
        built("self_supervision", word)


def test_mixed_labels_are_those_of_every_view() -> None:
    method = make(hard_views="all", transformed_weight=0.0)
    x, y = batch()
    one_hot = method.training_step((x, F.one_hot(y, 3).float()), 0)
    torch.testing.assert_close(one_hot, method.training_step((x, y), 0))
    assert "mixing" not in method.unsupported()


def test_own_modules_shift_no_student() -> None:
    ours, theirs = built("self_supervision")[0], built("kd")[0]
    a, b = state_of(ours.students), state_of(theirs.students)
    assert all(torch.equal(a[name], value) for name, value in b.items())


def test_the_stage_fits_the_teachers_projection_and_nothing_else() -> None:
    words = ("self_supervision", "data.noise=0.5")
    fitted, data, _ = built(*words, "method.stage_recipe.share=1")
    random, _, _ = built(*words, "method.stage_recipe.share=0")  # a control
    assert random.stage() is None
    assert not any(p.requires_grad for p in random.fitted_projection.parameters())
    for a, b in ((fitted.teacher, random.teacher), (fitted.students, random.students)):
        a, b = state_of(a), state_of(b)
        assert all(torch.equal(a[name], value) for name, value in b.items())
    x = next(iter(data.loader("train")))[0]
    losses = []
    for method in (random, fitted):
        views = method.make_views(x)
        table = method.eval().targets_of(views, torch.zeros(len(x), dtype=torch.long)).table
        losses.append(F.cross_entropy(table, torch.arange(len(x)).repeat(3)))
    assert losses[1] < losses[0]
