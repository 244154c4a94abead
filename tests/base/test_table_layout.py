"""Tables fit the terminal: no line is too long, and no word or number is broken or lost."""

import io
import textwrap

import pytest
from rich.console import Console

from kd_lightning.base.table_layout import column_groups
from kd_lightning.base.tables import Table, print_tables
from kd_lightning.evaluation import table as run_table

NETS = {
    "teacher": ("teacher · resnet(8, [32, 32, 64, 128])", 308_074),
    "a": ("a · resnet(8, [4, 4, 8, 16])", 5_142),
    "a, labels only": ("a · resnet(8, [4, 4, 8, 16]), labels only", 5_142),
}
METRICS = {
    "title": "dual_student on digits",
    "has_val": True,
    "unit": "images",
    "batch": 64,
    "device": "cpu",
    "protocol": "val: 10% of train, stratified by class (split_seed 0); test: a fixed fifth",
    "nets": {
        name: {
            "title": title,
            "parameters": parameters,
            "throughput": 1_523_338.0,
            "test": {"accuracy": 0.9833, "nll": 0.046, "ece": 0.011},
            "last": {"accuracy": 0.9722},
            "agreement": 0.9721,
            "origin": "trained, outputs/teachers/teacher-resnet-0123456789",
        }
        for name, (title, parameters) in NETS.items()
    },
}
OF_A_RUN = run_table.table_of(METRICS)
COLUMNS = [f"{part}/student/{metric} %" for part in ("test", "last") for metric in "abcdef"]
OF_A_SWEEP = Table(
    "table",
    "A sweep over the temperature",
    ["variant", "n", *COLUMNS],
    [
        [
            f"method.temperature={i} optimizer.lr=0.00{i}",
            "5",
            *[f"9{i}.{j:02d} ± 0.{i}" for j in range(12)],
        ]
        for i in range(3)
    ],
    ["Mean ± standard deviation over n seeds. test: with the weights chosen on validation."],
)
SHORT_NAMES = Table(
    "table", "Short", ["variant", *COLUMNS], [[name, *["95.26 ± 0.31"] * 12] for name in "ab"]
)


def printed(table: Table, width: int, **options: bool) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_tables([table], console, **options)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 125, 200])
@pytest.mark.parametrize("table", [OF_A_RUN, OF_A_SWEEP, SHORT_NAMES], ids=lambda t: t.title)
def test_a_table_fits_the_width_and_loses_nothing(table: Table, width: int) -> None:
    text = printed(table, width)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for row in table.rows:
        assert row[0] in text
        for cell in row[1:]:
            assert cell in text
    for note in table.notes:
        assert note in flat
    assert table.title in text


@pytest.mark.parametrize("width", [80, 100])
def test_the_cells_of_a_row_stand_under_their_heads(width: int) -> None:
    lines = printed(OF_A_RUN, width, split_heads=False).splitlines()
    (heads,) = [line for line in lines if "accuracy    last" in line]
    below = lines[lines.index("a · resnet(8, [4, 4, 8, 16])") + 1]
    for head, cell in {"parameters": "5,142", "ECE": "0.011", "images/s": "1,523,338"}.items():
        assert heads.index(head) + len(head) == below.index(cell) + len(cell)


def test_heads_of_fewer_lines_stand_at_the_bottom() -> None:
    lines = printed(OF_A_SWEEP, 80).splitlines()
    rule = next(number for number, line in enumerate(lines) if line.startswith("──"))
    assert lines[rule - 1].split()[:3] == ["n", "a", "%"]
    assert "test/student" in lines[rule - 2]


def test_a_table_that_fits_has_its_names_beside_the_cells() -> None:
    text = printed(OF_A_RUN, 140, split_heads=False)
    (line,) = [line for line in text.splitlines() if "labels only" in line]
    assert "1,523,338" in line


def test_groups_of_columns_repeat_short_names_beside_the_cells() -> None:
    text = printed(SHORT_NAMES, 80)
    rows = [line.split()[0] for line in text.splitlines() if "95.26" in line]
    assert rows == ["a", "b"] * (len(rows) // 2)
    assert len(rows) > 2
    assert text.count("Short") == 1


@pytest.mark.parametrize(
    ("widths", "room", "groups"),
    [
        ([3, 4, 5], 16, [[0, 1, 2]]),
        ([3, 4, 5], 15, [[0, 1], [2]]),
        ([30, 4, 5], 15, [[0], [1, 2]]),
        ([], 5, [[]]),
    ],
)
def test_columns_are_put_into_as_few_groups_as_fit(widths, room, groups) -> None:
    assert column_groups(widths, room) == groups


def test_a_cell_that_is_wider_than_the_terminal_is_whole() -> None:
    long = "x" * 50
    text = printed(Table("t", "T", ["net", "head"], [["a", long]], [f"note {long} end"]), 30)
    assert text.count(long) == 2
    assert textwrap.dedent(text.splitlines()[-2]) == long
