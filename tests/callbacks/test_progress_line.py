import re

import pytest
import torch
from rich.cells import cell_len

from kd_lightning.callbacks.progress_line import (
    ProgressLine,
    StudentState,
    clock,
    duration,
    read_students,
)

PARTS = {"hard": 0.31, "soft": 0.12, "peer": 0.05}
A, B = StudentState("a", 0.951, PARTS), StudentState("b", 0.25, PARTS)
RUN = ProgressLine("dual_student on digits", 20, done=12, elapsed=12.0, students=(A, B))


def lines(line: ProgressLine, width: int) -> list[str]:
    return [text.plain for text in line.lines(width)]


def test_80_columns_show_every_fact() -> None:
    head, a, b = lines(RUN, 79)
    assert head.startswith("dual_student on digits ━")
    assert head.endswith("━ 12/20 epochs, 0:08 left, 1.0 s/epoch")
    parts = "loss 0.480 = hard 0.310 + soft 0.120 + peer 0.050"
    assert a == f"  a  val accuracy 95.10%, {parts}"
    assert b == f"  b  val accuracy 25.00%, {parts}"


@pytest.mark.parametrize("width", [1, 5, 10, 20, 30, 40, 60, 79, 120, 200])
@pytest.mark.parametrize("title", ["kd", "teacher resnet(8, [32, 32, 64, 128])", "教師" * 30, ""])
def test_nothing_is_wider_than_the_terminal(width: int, title: str) -> None:
    many = (A, StudentState("a_long_name", 0.5, {f"part{i}": 0.5 for i in range(20)}))
    for students in ((), (A, B), many):
        line = ProgressLine(title, 1000, done=12.3, elapsed=1e5, students=students)
        assert max(map(cell_len, lines(line, width))) <= width


def test_the_least_important_fact_is_left_out_first() -> None:
    words = {width: lines(RUN, width)[1] for width in range(80, 5, -1)}
    assert list(dict.fromkeys(words.values()))[:5] == [
        "  a  val accuracy 95.10%, loss 0.480 = hard 0.310 + soft 0.120 + peer 0.050",
        "  a  val 95.10%, loss 0.480 = hard 0.310 + soft 0.120 + peer 0.050",
        "  a  val 95.10%, hard 0.310, soft 0.120, peer 0.050",
        "  a  val 95.10%, loss 0.480",
        "  a  val 95.10%",
    ]
    heads = {width: re.sub("━+", "━", lines(RUN, width)[0]) for width in (79, 60, 52, 40, 30, 12)}
    assert list(heads.values()) == [
        "dual_student on digits ━ 12/20 epochs, 0:08 left, 1.0 s/epoch",
        "dual_student on digits ━ 12/20 epochs, 0:08 left",
        "dual_student on … ━ 12/20 epochs, 0:08 left",
        "dual_student on… 12/20 epochs, 0:08 left",
        "dual_student on … 12/20 epochs",
        "… 12/20 epo…",
    ]


def test_a_wide_terminal_has_a_longer_bar_with_an_end() -> None:
    bars = {width: lines(RUN, width)[0].count("━") for width in (79, 120, 200)}
    assert 10 <= bars[79] < bars[120] == bars[200] == 40


@pytest.mark.parametrize(("done", "full"), [(0, 0), (10, 20), (20, 40)])
def test_the_bar_is_as_full_as_the_run_is_done(done: float, full: int) -> None:
    (head,) = ProgressLine("kd", 20, done=done).lines(200)
    cells = {span.style: span.end - span.start for span in head.spans}
    assert (cells.get("bar.complete", 0), cells.get("bar.back", 0)) == (full, 40 - full)


def test_students_stand_in_columns() -> None:
    line = ProgressLine("kd", 20, students=(A, StudentState("other", 0.25, PARTS)))
    _, a, other = lines(line, 100)
    assert a.index("val") == other.index("val")


def test_a_log_line_has_every_fact() -> None:
    assert RUN.text() == (
        "dual_student on digits: epoch 12/20, 0:08 left, 1.0 s/epoch; "
        "a: val accuracy 95.10%, loss 0.480 = hard 0.310 + soft 0.120 + peer 0.050; "
        "b: val accuracy 25.00%, loss 0.480 = hard 0.310 + soft 0.120 + peer 0.050"
    )


def test_within_an_epoch_a_log_line_has_the_finished_share() -> None:
    assert "epoch 0.4/20," in ProgressLine("kd", 20, done=0.4, elapsed=1.0).text()


@pytest.mark.parametrize(
    ("student", "words"),
    [
        (
            StudentState("a", 0.5, {"hard": 0.25}),
            "val accuracy 50.00%, hard 0.250",
        ),  # the only term is the loss
        (StudentState("a", None, {"hard": 0.25}), "hard 0.250"),
        (StudentState("a", None, PARTS), "loss 0.480 = hard 0.310 + soft 0.120 + peer 0.050"),
        (StudentState("a", 0.5, {}), "val accuracy 50.00%"),
        (StudentState("a", None, {}), ""),
    ],
)
def test_unknown_facts_are_left_out(student: StudentState, words: str) -> None:
    assert student.texts()[0] == words
    assert "val" in words or not any("val" in shorter for shorter in student.texts())


@pytest.mark.parametrize(
    ("line", "times"),
    [
        (ProgressLine("kd", 20), []),  # no epoch is finished yet
        (ProgressLine("kd", 20, first=5, done=5, elapsed=1.0), []),
        (ProgressLine("kd", 20, done=5, elapsed=10.0), ["0:30 left", "2.0 s/epoch"]),
        (
            ProgressLine("kd", 20, first=5, done=10, elapsed=10.0),
            ["0:20 left", "2.0 s/epoch"],
        ),  # resumed
        (ProgressLine("kd", 20, done=0.5, elapsed=60.0), ["39:00 left", "2:00/epoch"]),
        (ProgressLine("kd", 20, done=20, elapsed=62.0), ["took 1:02"]),
        (
            ProgressLine("kd", 20, done=5, elapsed=62.0, finished=True),
            ["took 1:02"],
        ),  # stopped early
    ],
)
def test_the_time_left_follows_from_the_epochs_of_this_process(
    line: ProgressLine, times: list
) -> None:
    assert line.times() == times


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (90_000, "25:00:00")]
)
def test_a_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.042, "0.04 s"), (3.14, "3.1 s"), (125, "2:05")])
def test_a_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("done", "epochs", "tenth"), [(0, 20, 0), (1.9, 20, 0), (2, 20, 1), (3, 3, 10), (3, 10, 3)]
)
def test_tenths(done: float, epochs: int, tenth: int) -> None:
    assert ProgressLine("kd", epochs, done=done).tenth == tenth


def test_the_tenth_at_the_end_of_every_epoch_is_exact() -> None:
    for epochs in range(1, 300):
        tenths = [ProgressLine("kd", epochs, done=done).tenth for done in range(epochs + 1)]
        assert tenths == [done * 10 // epochs for done in range(epochs + 1)]


def test_a_student_gets_only_the_metrics_of_its_name() -> None:
    logged = {
        "train/a/hard": 1.0,
        "train/a/soft": 2.0,
        "train/ab/hard": 3.0,
        "val/a/accuracy": 0.5,
        "val/a/nll": 9.0,
        "val/accuracy": 0.75,
        "train/weight/mean": 0.25,
    }
    metrics = {name: torch.tensor(value) for name, value in logged.items()}
    assert read_students(metrics, ["a", "ab"]) == (
        StudentState("a", 0.5, {"hard": 1.0, "soft": 2.0}),
        StudentState("ab", None, {"hard": 3.0}),
    )
    assert read_students({}, ["a"]) == (StudentState("a", None, {}),)
