import io
import re

from rich.console import Console

from kd_lightning.base.tables import Table, in_latex, latex, markdown, print_tables

TABLE = Table(
    "table",
    "100% of a_b & c",
    ["variant", "val/[/x]/accuracy %"],
    [["a|b *", "95.26 ± 0.31"], ["[c] #1 {d}", "1,234,567.89"]],
    ["job 1 [red]: x_1 < 2", "* chosen"],
)


def printed(width):
    console = Console(file=io.StringIO(), width=width)
    print_tables([TABLE], console)
    return console.file.getvalue()


def test_markdown_keeps_what_would_be_markup():
    text = markdown(TABLE)
    assert text.splitlines()[2:4] == [r"| variant | val/\[/x\]/accuracy % |", "|---|---:|"]
    assert r"| a\|b \* | 95.26 ± 0.31 |" in text
    assert "- job 1 \\[red\\]: x_1 \\< 2" in text


def test_latex_escapes_its_signs():
    assert in_latex(r"50% a_b & c #1 {x} $y ~ ^ \ < >") == (
        r"50\% a\_b \& c \#1 \{x\} \$y \textasciitilde{} \textasciicircum{} \textbackslash{} "
        "$<$ $>$"
    )
    assert in_latex("95 ± 1 − 2 · 3") == r"95 $\pm$ 1 $-$ 2 $\cdot$ 3"


def test_latex_is_whole():
    text = latex(TABLE)
    assert re.findall(r"\\begin\{(\w+)\}", text) == ["table", "tabular"]
    assert re.findall(r"\\end\{(\w+)\}", text) == ["tabular", "table"]
    rules = re.findall(r"\\(?:top|mid|bottom)rule", text)
    assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]
    # after a line break these would be its arguments
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
