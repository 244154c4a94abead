import csv
import shutil

import pytest
from made_sweeps import job, metrics, rows_over_seeds, settings

from kd_lightning import reports
from kd_lightning.base.errors import UserError


@pytest.fixture
def sweep(tmp_path):
    """Four rows on three data sets with two seeds: a numeric grid, a pair, and one failed job."""
    folder = tmp_path / "2026_grid_1f2e"
    for number in range(2 * 3 * 4):
        seed, d, t, c = number // 12, number // 4 % 3, number // 2 % 2, number % 2
        axes = {"T": t, "c": c, "data.name": f"set{d}", "seed": seed}
        val = 0.6 + 0.1 * t + 0.013 * d * c + 0.007 * seed * t
        outcome = "Boom\nout of memory_1 & more" if number == 5 else metrics({"a": val}, val)
        job(folder, f"T={t} c={c}", axes, outcome, overrides=["outputs=/home/x", "trainer.x=1"])
    return settings(
        folder,
        pairs=[["T=1", "T=0"]],
        command=["-m", "outputs=/home/x", "sweep.dir=/home/y", "T=0,1"],
        overrides=["data.root=/home/z", "trainer.x=1"],
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def read_csv(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_sweep_yaml_and_records_jsonl_give_the_same_files_byte_for_byte(sweep, tmp_path):
    pytest.importorskip("scikit_posthocs")
    written = reports.write(reports.build([sweep]), sweep)
    copy = tmp_path / "study"
    copy.mkdir()
    for name in ("sweep.yaml", "records.jsonl"):
        shutil.copy(sweep / name, copy)
    again = reports.write(reports.build([copy]), copy)
    assert [path.name for path in again] == [path.name for path in written]
    assert {path.name for path in written} == {
        "table.md", "table.csv", "table.tex", "values.csv", "pairs.csv", "pairs.tex",
        "data_sets.csv", "data_sets.tex", "records.jsonl", "critical_difference-a.png",
        "heatmap-set0.png", "heatmap-set1.png", "heatmap-set2.png",
    }  # fmt: skip
    assert contents(copy) == contents(sweep)


def test_another_folder_gets_everything_that_the_report_is_made_from(sweep, tmp_path):
    options = {"columns": ["test/a/ece"], "pairs": [["T=0 c=0", "T=0 c=1"]]}
    out, again = tmp_path / "out", tmp_path / "again"
    reports.write(reports.build([sweep], **options), out)
    reports.write(reports.build([out]), again)
    assert contents(again) == contents(out)
    assert "/home" not in "".join(
        text.decode() for n, text in contents(out).items() if "png" not in n
    )


def test_two_sweeps_are_written_into_one_folder(sweep, tmp_path):
    other = rows_over_seeds(tmp_path / "other", {"kd": [0.9, 0.8]})
    reports.write(reports.build([sweep, other]), tmp_path / "out")
    reports.write(reports.build([tmp_path / "out"]), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_table_csv_has_every_net_part_and_metric_at_full_precision(tmp_path):
    values = [0.1234567890123, 0.2]
    rows = {"kd": values, "dead": ["Boom"]}
    reports.write(reports.build([rows_over_seeds(tmp_path, rows)]), tmp_path)
    found = read_csv(tmp_path / "table.csv")
    (row,) = [r for r in found if (r["split"], r["net"], r["metric"]) == ("test", "a", "accuracy")]
    assert float(row["mean"]) == sum(values) / 2
    assert float(row["std"]) == pytest.approx(abs(values[0] - values[1]) / 2**0.5, rel=1e-15)
    assert (row["variant"], row["n"], row["planned"]) == ("kd", "2", "2")
    columns = set(reports.build([tmp_path]).source.results[0].values)
    named = {"/".join(filter(None, (r["split"], r["net"], r["metric"]))) for r in found}
    assert named == columns | {""}
    assert [(r["n"], r["mean"]) for r in found if r["variant"] == "dead"] == [("0", "")]


def test_values_csv_has_every_job(sweep):
    reports.write(reports.build([sweep]), sweep)
    found = read_csv(sweep / "values.csv")
    assert {row["job"] for row in found} == {str(number) for number in range(24)}
    (failed,) = [row for row in found if row["job"] == "5"]
    assert (failed["state"], failed["error"]) == ("failed", "out of memory_1 & more")
    (value,) = [r["value"] for r in found if r["job"] == "3" and
                (r["split"], r["net"], r["metric"]) == ("val", "a", "accuracy")]  # fmt: skip
    assert float(value) == 0.6 + 0.1
    assert {(row["T"], row["c"]) for row in found if row["job"] == "3"} == {("1", "1")}


def test_pairs_csv_has_the_numbers_of_the_table(tmp_path):
    rows_over_seeds(tmp_path, {"kd": [0.9, 0.8, 0.7], "x": [0.5, 0.5, 0.5]})
    settings(tmp_path, pairs=[["kd", "x"]])
    report = reports.build([tmp_path])
    reports.write(report, tmp_path)
    (row,) = read_csv(tmp_path / "pairs.csv")
    (difference,) = report.differences
    assert float(row["difference"]) == difference.sample.mean
    assert (float(row["low"]), float(row["high"])) == difference.sample.interval()
    assert float(row["p"]) == float(row["p_holm"]) == difference.sample.p_value()


def test_every_table_is_in_the_markdown(sweep):
    report = reports.build([sweep])
    reports.write(report, sweep)
    text = (sweep / "table.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## {table.title}" for table in report.tables
    ]


def test_files_of_an_earlier_report_are_removed(tmp_path):
    rows_over_seeds(tmp_path, {"kd": [0.9, 0.8], "x": [0.5, 0.5]})
    settings(tmp_path, pairs=[["kd", "x"]])
    reports.write(reports.build([tmp_path]), tmp_path)
    assert len(list(tmp_path.glob("pairs.*"))) == 2
    settings(tmp_path, pairs=[])
    (tmp_path / "notes.txt").write_text("my own")
    reports.write(reports.build([tmp_path]), tmp_path)
    assert not list(tmp_path.glob("pairs.*"))
    assert (tmp_path / "notes.txt").exists()


def test_nothing_is_written_into_the_directory_of_another_sweep(sweep, tmp_path):
    other = rows_over_seeds(tmp_path / "other", {"kd": [0.9]})
    before = contents(other)
    with pytest.raises(UserError, match="holds another sweep"):
        reports.write(reports.build([sweep]), other)
    assert contents(other) == before


def test_a_folder_that_cannot_be_written_to_is_named(sweep, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the report to .*file.*--out"):
        reports.write(reports.build([sweep]), tmp_path / "file")


def test_without_matplotlib_a_note_replaces_the_heat_map(sweep, monkeypatch):
    from kd_lightning.reports import assemble, write_files

    for module in (assemble, write_files):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    written = reports.write(reports.build([sweep]), sweep)
    assert not [path for path in written if path.suffix == ".png"]
    assert "No heat map: matplotlib is not installed" in (sweep / "table.md").read_text()


def test_a_written_search_names_no_storage_and_stays_a_search(tmp_path):
    sweep = rows_over_seeds(tmp_path / "sweep", {"lr=1": [0.9], "lr=2": [0.8]})
    settings(sweep, search={"trials": 2, "storage": "sqlite:////home/x.db"})
    reports.write(reports.build([sweep]), tmp_path / "out")
    assert "/home" not in (tmp_path / "out" / "sweep.yaml").read_text()
    assert reports.build([tmp_path / "out"]).tables[0].heads[0] == "trial"


def test_the_markdown_has_one_title(sweep, tmp_path):
    one = rows_over_seeds(tmp_path / "one", {"kd": [0.9]})
    for folder in (sweep, one):
        reports.write(reports.build([folder]), folder)
        lines = (folder / "table.md").read_text().splitlines()
        assert lines[0] == f"# {folder.name}"
        assert sum(line.startswith("# ") for line in lines) == 1
        assert f"## {folder.name}" not in lines


def test_files_that_no_report_has_written_stay(sweep, tmp_path):
    report = reports.build([sweep])
    out = tmp_path / "mine"
    out.mkdir()
    own = ("pairs.py", "data_sets.yaml", "heatmap_final.png", "heatmap-old.png")
    for name in own:
        (out / name).write_text("mine")
        (sweep / name).write_text("mine")
    reports.write(report, out)
    assert all((out / name).read_text() == "mine" for name in own)
    reports.write(report, sweep)
    assert all((sweep / name).read_text() == "mine" for name in own[:3])
    (out / "records.jsonl").unlink()
    reports.write(report, out)  # committed tables may lack the records
    for name in ("records.jsonl", "table.csv", "sweep.yaml"):
        (out / name).unlink()
    (out / "table.md").write_text("my notes")
    with pytest.raises(UserError, match=r"mine holds table.md, which no report has written.*--out"):
        reports.write(report, out)
    assert (out / "table.md").read_text() == "my notes"


def test_a_report_is_not_written_into_a_run(sweep, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("method: {}")
    with pytest.raises(UserError, match=r"is a run, whose own table would be replaced.*--out"):
        reports.write(reports.build([sweep]), tmp_path / "run")
    assert len(list((tmp_path / "run").iterdir())) == 1
