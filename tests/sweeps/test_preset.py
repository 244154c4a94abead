"""Which rows of a preset are run."""

from dataclasses import replace

import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.sweeps.plan import expand
from kd_lightning.sweeps.preset import Settings, settings_of, with_chosen_rows

ROWS = {"kd": ["a=1"], "kd + mixup": ["a=2"], "SFTN": ["a=3"], "SFTN, linear": ["a=4"]}
PAIRS = [
    ["kd + mixup", "kd"],
    ["SFTN", "kd"],
    ["SFTN lr=1", "kd lr=1"],
    ["SFTN, linear @ a", "kd @ b"],
    ["lr=1", "lr=2"],
]


def chosen(**settings) -> Settings:
    return with_chosen_rows(Settings(variants=ROWS, pairs=PAIRS, **settings))


def test_all_rows_are_run_where_none_are_named() -> None:
    assert chosen() == Settings(variants=ROWS, pairs=PAIRS)
    assert chosen(only=[*ROWS]) == Settings(variants=ROWS, pairs=PAIRS, only=[*ROWS])


def test_a_row_that_is_left_out_takes_its_pairs_with_it() -> None:
    left = chosen(without=["SFTN"])
    assert [*left.variants] == ["kd", "kd + mixup", "SFTN, linear"]
    assert left.pairs == [PAIRS[0], *PAIRS[3:]]
    left = chosen(without=["kd"])  # "kd + mixup" is another row
    assert [*left.variants] == ["kd + mixup", "SFTN", "SFTN, linear"]
    assert left.pairs == [PAIRS[-1]]


def test_a_name_may_hold_what_names_a_net_in_a_pair() -> None:
    rows = {"a @ b": ["x=1"], "a": ["x=2"]}
    settings = Settings(variants=rows, pairs=[["a @ b @ student", "a @ student"]])
    assert with_chosen_rows(replace(settings, without=["a @ b"])).pairs == []


def test_only_the_named_rows_are_run_in_the_order_of_the_preset() -> None:
    left = chosen(only=["SFTN", "kd"], primary=[PAIRS[0], PAIRS[1]])
    assert [*left.variants] == ["kd", "SFTN"]
    assert left.pairs == [PAIRS[1], PAIRS[2], PAIRS[4]]
    assert left.primary == [PAIRS[1]]
    assert [*chosen(only=["SFTN", "kd"], without=["kd"]).variants] == ["SFTN"]


def test_numbers_of_papers_stay_with_the_rows_that_are_run() -> None:
    entry = {"source": "a paper", "rows": {"kd": {"x": 1}, "SFTN": {"x": 2}}}
    (left,) = chosen(without=["SFTN"], reported=[entry]).reported
    assert left == {"source": "a paper", "rows": {"kd": {"x": 1}}}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"only": ["kdd"]}, r"unknown row 'kdd'.*sweep\.only"),
        ({"without": ["sftn"]}, r"unknown row 'sftn'.*sweep\.without"),
        ({"without": [*ROWS]}, "leave no row: choose at least one"),
        ({"only": []}, "leave no row: choose at least one"),
        ({"without": ["SFTN"], "primary": [PAIRS[1]]}, "none of the preset's primary contrasts: "
         "choose both rows of one, such as SFTN and kd"),
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_meant_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        chosen(**settings)


def test_rows_of_a_preset_are_chosen_on_the_command_line() -> None:
    words = ["sweep=zoo", 'sweep.without=[SFTN,"SFTN, linear branches"]']
    settings, _, _ = settings_of(words, None)
    whole, _, _ = settings_of(["sweep=zoo"], None)
    assert {*whole.variants} - {*settings.variants} == {"SFTN", "SFTN, linear branches"}
    assert {job.axes["variant"] for job in expand(settings, [])} == {*settings.variants}
    named = {side for pair in settings.pairs for side in pair}
    assert named <= {*settings.variants}
    assert len(settings.pairs) == len(whole.pairs) - 2
