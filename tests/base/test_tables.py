import io
import re

from rich.console import Console

from kd_lightning.base.tables import Table, csv_text, in_latex, latex, markdown, print_tables

TABLE = Table(
    "table",
    "100% of a_b & c",
    ["variant", "val/[/x]/accuracy %"],
    [["a|b *", "95.26 ± 0.31"], ["[c] #1 {d}", "1,234,567.89"]],
    ["job 1 [red]: x_1 < 2", "* chosen"],
)


def printed(width, **options):
    console = Console(file=io.StringIO(), width=width)
    print_tables([TABLE], console, **options)
    return console.file.getvalue()


def test_markdown_escapes_its_own_characters():
    text = markdown(TABLE)
    assert text.splitlines()[2:4] == [r"| variant | val/\[/x\]/accuracy % |", "|---|---:|"]
    assert r"| a\|b \* | 95.26 ± 0.31 |" in text
    assert "- job 1 \\[red\\]: x_1 \\< 2" in text


def test_markdown_has_the_heading_and_the_notes_that_are_asked_for():
    text = markdown(TABLE, level=1, bullets=False, escape_markup=False)
    assert text.splitlines() == [
        "# 100% of a_b & c",
        "",
        "| variant | val/[/x]/accuracy % |",
        "|---|---:|",
        "| a|b * | 95.26 ± 0.31 |",
        "| [c] #1 {d} | 1,234,567.89 |",
        "",
        "job 1 [red]: x_1 < 2",
        "* chosen",
    ]


def test_csv_has_a_column_for_every_key_and_values_at_full_precision():
    text = csv_text([{"a": 1 / 3, "b": None}, {"c": "x, y"}])
    assert text.splitlines() == ["a,b,c", f"{1 / 3},,", ',,"x, y"']


def test_heads_are_split_at_their_last_slash_unless_told_otherwise():
    assert "accuracy %" in printed(200)
    assert "val/[/x]/accuracy %" not in printed(200)
    assert "val/[/x]/accuracy %" in printed(200, split_heads=False)


def test_latex_escapes_its_own_characters():
    assert in_latex(r"50% a_b & c #1 {x} $y ~ ^ \ < >") == (
        r"50\% a\_b \& c \#1 \{x\} \$y \textasciitilde{} \textasciicircum{} \textbackslash{} "
        "$<$ $>$"
    )
    assert in_latex("95 ± 1 − 2 · 3") == r"95 $\pm$ 1 $-$ 2 $\cdot$ 3"


def test_latex_is_well_formed():
    text = latex(TABLE)
    assert re.findall(r"\\begin\{(\w+)\}", text) == ["table", "tabular"]
    assert re.findall(r"\\end\{(\w+)\}", text) == ["tabular", "table"]
    rules = re.findall(r"\\(?:top|mid|bottom)rule", text)
    assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]
    # directly after a line break LaTeX would read these as its arguments
    assert r"{[}c] \#1 \{d\} &" in text
    assert r"a|b {*} & 95.26 $\pm$ 0.31 \\" in text
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [1, 1, 1]


def test_a_narrow_terminal_cuts_no_number_and_reads_no_markup():
    for width in (20, 200):
        text = printed(width)
        assert "1,234,567.89" in text
        assert "95.26 ± 0.31" in text
        assert "[c] #1 {d}" in text
        assert "val/[/x]" in text
        assert "job 1 [red]: x_1 < 2" in text
        assert "…" not in text
