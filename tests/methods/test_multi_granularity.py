"""MAG and MAS against their formulas, and the laws that follow from them."""

import dataclasses
from pathlib import Path

import pytest
import torch
from helpers import net, sgd
from methods.test_contract import built, state_of
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.base.weights_hash import sha256_of
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.kd import KnowledgeDistillation
from kd_lightning.methods.multi_granularity import FitCodecs, MultiGranularity
from kd_lightning.methods.stage_recipe import StageRecipe

RECIPE = StageRecipe(run_epochs=8, learning_rate=0.01)


def make(**options: object) -> MultiGranularity:
    torch.manual_seed(0)
    student, teacher = net(), net(features=9, hidden=5)
    with torch.no_grad():
        teacher.head.weight.mul_(9)
    settings = {
        "students": {"student": student},
        "teacher": teacher,
        "input_shape": (12,),
        "stage_recipe": RECIPE,
        "narrow_size": 4,
        "wide_size": 16,
    }
    return MultiGranularity(num_classes=3, optimizer=sgd(), **(settings | options))


def batch(size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 12, generator=generator), torch.arange(size) % 3


def terms(method: MultiGranularity, cached: dict | None = None) -> dict[str, Tensor]:
    found = method.losses(*batch(), cached, 1.0).terms
    return {name.removeprefix("student/"): value for name, value in found.items()}


def kl(ours: Tensor, theirs: Tensor, t: float) -> Tensor:
    return t**2 * F.kl_div(
        (ours / t).log_softmax(1), (theirs / t).softmax(1), reduction="batchmean"
    )


@pytest.mark.parametrize("target", ["teacher", "mean"])
def test_every_term_is_its_formula(target: str) -> None:
    method, (x, y) = make(soft_target=target), batch()
    student, teacher = method.students["student"](x), method.teacher(x)
    expected = {"hard": 0.2 * F.cross_entropy(student.logits, y)}
    logits = [teacher.logits]
    for name, t, size in (("narrow", 2, 4), ("wide", 8, 16)):
        mine, codec = method.encoders["student"][name], method.codecs[name]
        code = codec.encoder(teacher.features)
        assert code.shape == (8, size)
        logits.append(codec.decoder(code))
        expected[name] = kl(mine(student.features), code, t)
    soft = sum(logits) / 3 if target == "mean" else teacher.logits
    expected["soft"] = 0.8 * kl(student.logits, soft, 4)
    found = terms(method)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_the_parts_have_the_released_sizes() -> None:
    method = make(narrow_size=64, wide_size=256)
    of_teacher, of_student = method.codecs["narrow"], method.encoders["student"]["wide"]
    shapes = [[tuple(p.weight.shape) for p in part if isinstance(p, nn.Linear)]
              for part in (of_teacher.encoder, of_teacher.decoder, of_student)]  # fmt: skip
    assert shapes == [[(9, 9), (64, 9)], [(9, 64), (3, 9)], [(8, 8), (256, 8)]]


def test_equal_codes_teach_nothing() -> None:
    method = make(students={"student": net(features=9, hidden=5)})
    method.students["student"].load_state_dict(method.teacher.state_dict())
    for name, codec in method.codecs.items():
        method.encoders["student"][name].load_state_dict(codec.encoder.state_dict())
    found = terms(method)
    for name in ("soft", "narrow", "wide"):
        torch.testing.assert_close(found[name], torch.zeros(()), rtol=0, atol=1e-5)


def test_the_codes_term_knows_no_constant_but_a_scale() -> None:
    method = make()
    before = terms(method)
    last = method.encoders["student"]["narrow"][2]
    with torch.no_grad():
        last.bias.add_(3)
    torch.testing.assert_close(terms(method)["narrow"], before["narrow"])
    with torch.no_grad():
        last.weight.mul_(3)
    assert not torch.allclose(terms(method)["narrow"], before["narrow"])


def test_decoders_that_give_the_teachers_logits_make_the_mean_the_teacher() -> None:
    method = make(soft_target="mean")
    logits = method.teacher(batch()[0]).logits
    for codec in method.codecs.values():
        codec.decoder = Constant(logits)
    torch.testing.assert_close(terms(method)["soft"], terms(make())["soft"])


class Constant(nn.Module):
    """Gives the same output whatever comes in."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output.detach()

    def forward(self, x: Tensor) -> Tensor:
        return self.output


def test_without_codes_it_is_kd_to_the_last_bit() -> None:
    ours = make(granularity_weight=0.0)
    nets = make()
    kd = KnowledgeDistillation(
        students=dict(nets.students.items()), teacher=nets.teacher, num_classes=3,
        optimizer=sgd(), hard_weight=0.2, soft_weight=0.8,
    )  # fmt: skip
    for step in range(3):
        for method in (ours, kd):
            optimizer = method.make_optimizer(list(method.students.parameters()))
            method.training_step(batch(), step).backward()
            optimizer.step()
            optimizer.zero_grad()
    a, b = state_of(ours.students), state_of(kd.students)
    assert all(torch.equal(a[name], b[name]) for name in b)
    assert (ours.stage(), ours.own_modules(), len(ours.codecs)) == (None, {}, 0)


def test_the_mean_of_logits_can_stand_without_codes() -> None:
    method = make(granularity_weight=0.0, soft_target="mean")
    assert terms(method).keys() == {"hard", "soft"}
    assert method.own_modules() == {}
    assert method.stage() is not None


def test_gradients_go_to_students_and_their_encoders_alone() -> None:
    method = make(soft_target="mean")
    method.training_step(batch(), 0).backward()
    learning = [*method.students.parameters(), *method.encoders.parameters()]
    assert all(p.grad is not None for p in learning)
    assert all(p.grad is None for p in [*method.teacher.parameters(), *method.codecs.parameters()])


def test_the_stages_loss_is_its_formula_and_reaches_the_codecs_alone() -> None:
    method, (x, y) = make(), batch()
    teacher = method.teacher(x)
    loss = sum(
        kl(codec(teacher.features), teacher.logits, t) + F.cross_entropy(codec(teacher.features), y)
        for codec, t in zip(method.codecs.values(), (2, 8), strict=True)
    )
    stage = method.stage()
    stage.log = lambda *args, **options: None  # there is no Trainer
    found = stage.training_step((x, y), 0)
    torch.testing.assert_close(found, loss)
    found.backward()
    assert all(p.grad.abs().sum() > 0 for p in method.codecs.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())
    for codec in method.codecs.values():
        codec.decoder = Constant(teacher.logits)
    exact = stage.training_step((x, y), 0)
    torch.testing.assert_close(exact, 2 * F.cross_entropy(teacher.logits, y))


def test_the_stages_temperatures_shape_its_result() -> None:
    settings = [make(narrow_temperature=t).stage().settings() for t in (2.0, 2.0, 3.0)]
    assert settings[0] == settings[1] != settings[2]


NUMBERS = ("hard_weight", "soft_weight", "granularity_weight", "temperature", "narrow_temperature",
           "wide_temperature", "narrow_size", "wide_size")  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_changes_the_loss_and_is_checked(name: str) -> None:
    first, second = (3, 5) if "size" in name else (0.3, 0.6)
    losses = [make(**{name: value}).training_step(batch(), 0) for value in (first, second)]
    assert losses[0] != losses[1]
    with pytest.raises(UserError, match=rf"method.{name} must be .* got -1"):
        make(**{name: -1})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"soft_target": "both"}, r"expected one of mean, teacher \(method\.soft_target=…\)"),
        ({"soft_target": "mean", "stage_recipe": dataclasses.replace(RECIPE, share=0)},
         r"needs decoders that were fitted, .*raise method\.stage_recipe\.share"),
    ],
)  # fmt: skip
def test_what_a_person_gets_wrong_is_one_sentence(options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make(**options)


def test_a_batch_of_one_sample_is_finite() -> None:
    method = make()
    loss = method.training_step(batch(1), 0)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.encoders.parameters())


# The cache


@pytest.mark.parametrize("options", [
    {}, {"soft_target": "mean"}, {"granularity_weight": 0.0}, {"soft_weight": 0.0},
    {"soft_weight": 0.0, "granularity_weight": 0.0},
])  # fmt: skip
def test_a_cache_has_what_the_losses_read_and_gives_the_same(options: dict) -> None:
    method = make(**options)
    values = method.cache_values(*batch()) if method.teacher_rows else {}
    assert values.keys() == method.cache_keys().keys()
    assert all(len(value) == 8 for value in values.values())
    assert all(map(torch.equal, terms(method, values).values(), terms(method).values()))


def test_the_caches_key_follows_the_codecs_and_kds_logits_do_not() -> None:
    one, other = make(), make(soft_target="mean")
    keys = one.cache_keys(), other.cache_keys()
    assert keys[0]["logits"] is None  # the teacher's own, whatever the codecs
    assert keys[1]["logits"] == keys[1]["wide"] == sha256_of(other.codecs)
    with torch.no_grad():
        one.codecs["narrow"].decoder[0].bias.add_(1)
    assert one.cache_keys()["narrow"] != keys[0]["narrow"]
    assert one.unsupported() == {}
    assert "cache_top_k" in other.unsupported()


def test_a_cached_run_ends_as_one_without_a_cache(tiny: list[str], tmp_path: Path) -> None:
    words = ("method=multi_granularity", *tiny, "method.soft_target=mean", "seed=3")
    plain = distill(*words).metrics["nets"]["student"]["last"]
    cached = distill(*words, "teacher.cache=1").metrics["nets"]["student"]["last"]
    assert cached["nll"] == pytest.approx(plain["nll"], rel=1e-2)  # logits are kept in fp16
    assert len(list(tmp_path.glob("stages/*/result.safetensors"))) == 1
    names = {path.name.split("-")[0] for path in tmp_path.glob("teacher_cache/*/*.0-0")}
    assert names == {"logits", "narrow", "wide"}


def test_the_stage_fits_the_codecs_and_nothing_else() -> None:
    fitted, data, _ = built("multi_granularity", "method.stage_recipe.share=1")
    random, _, _ = built("multi_granularity", "method.stage_recipe.share=0")  # a control
    assert random.stage() is None
    assert not any(p.requires_grad for p in random.codecs.parameters())
    assert isinstance(fitted.stage(), FitCodecs)
    for a, b in ((fitted.teacher, random.teacher), (fitted.students, random.students)):
        a, b = state_of(a), state_of(b)
        assert all(torch.equal(a[name], value) for name, value in b.items())
    with torch.no_grad():
        teacher = fitted.teacher(next(iter(data.loader("train")))[0])
        for name in ("narrow", "wide"):
            far, near = (
                soft_target_kl(one.codecs[name](teacher.features), teacher.logits, 4.0).mean()
                for one in (random, fitted)
            )
            assert near < far


def test_own_modules_shift_no_student() -> None:
    a, b = (state_of(built(method)[0].students) for method in ("multi_granularity", "kd"))
    assert all(torch.equal(a[name], value) for name, value in b.items())
