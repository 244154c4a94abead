from pathlib import Path

from kd_lightning.evaluation.sections import Section, file_stem, percent


def test_a_table_has_the_chosen_columns_and_a_file_has_all_values(tmp_path: Path) -> None:
    rows = [{"name": "a", "share": 1 / 3, "interval": (0.25, 0.5)}, {"name": "b", "share": None}]
    section = Section("some", "Some", rows, {"name": ("who", str), "share": ("%", percent)}, ["!"])
    table = section.table()
    assert (table.heads, table.rows) == (["who", "%"], [["a", "33.33%"], ["b", ""]])
    section.write(tmp_path)
    header, first, second = (tmp_path / "some.csv").read_text().splitlines()
    assert header == "name,share,interval_low,interval_high"
    assert first == "a,0.3333333333333333,0.25,0.5"
    assert second == "b,,,"
    assert "| a | 33.33% |" in (tmp_path / "some.md").read_text()


def test_a_file_name_has_no_sign_of_a_path() -> None:
    assert file_stem("classes", "run/a b") == "classes-run-a-b"
    assert file_stem("classes", "") == "classes"
    assert "/" not in file_stem("x", "../../etc")
