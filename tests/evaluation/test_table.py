import csv
import io

import pytest
from rich.console import Console

from kd_lightning.evaluation import table


def result(accuracy: float, nll: float = 0.5, ece: float = 0.02) -> dict[str, float]:
    return {"accuracy": accuracy, "nll": nll, "ece": ece, "brier": 0.1}


@pytest.fixture
def metrics() -> dict:
    """The part of the metrics of a run that the table needs."""
    student = {"last": result(0.85), "parameters": 500, "throughput": 4000.4, "agreement": 0.95}
    return {
        "title": "dual_student on digits",
        "nets": {
            "teacher": {"title": "teacher · resnet", "test": result(0.987), "parameters": 1000,
                        "throughput": 1234.5, "origin": "trained, outputs/teachers/x"},
            "a": {"title": "a · mlp", "test": result(0.9, 1.2345, 0.0678), **student},
            "ensemble": {"title": "ensemble of the students", "test": result(0.95),
                         "parameters": 1000, "throughput": 2000.0, "agreement": 0.99},
        },
        "has_val": True,
        "protocol": "val: 10% of train; test: a fixed fifth",
        "batch": 64,
        "unit": "images",
        "device": "cpu",
    }  # fmt: skip


def printed(metrics: dict, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    table.print_table(metrics, console)
    return console.file.getvalue()


@pytest.fixture
def scaled(metrics) -> dict:
    """The same, with fitted temperatures."""
    for key, t, ece in (("teacher", 1.234, 0.0111), ("a", 0.01, 0.0222), ("ensemble", 100.0, 0.3)):
        metrics["nets"][key]["scaled"] = {"temperature": t, "ece": ece}
    return metrics


def test_the_whole_text_of_table_md(metrics):
    metrics["nets"]["a"]["title"] = "a · mlp([8, 8])"
    assert table.markdown(metrics) == (
        "# dual_student on digits\n\n"
        "| net | accuracy | last | NLL | ECE | parameters | compression | agreement | images/s |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        "| teacher · resnet | 98.70% |  | 0.500 | 0.020 | 1,000 | 1.0x |  | 1,234 |\n"
        "| a · mlp([8, 8]) | 90.00% | 85.00% | 1.234 | 0.068 | 500 | 2.0x | 95.00% | 4,000 |\n"
        "| ensemble of the students | 95.00% |  | 0.500 | 0.020 | 1,000 | 1.0x | 99.00% | 2,000 |\n"
        "\n"
        "val: 10% of train; test: a fixed fifth.\n"
        "accuracy: of the weights chosen on val; last: of the last epoch; "
        "both on test, which chose nothing.\n"
        "Teacher: trained, outputs/teachers/x. agreement: same class as the teacher.\n"
        "images/s: forward pass, batches of 64, cpu.\n"
    )


def test_fitted_temperatures_are_two_columns_more(scaled):
    (row,) = [line for line in table.markdown(scaled).splitlines() if "a · mlp" in line]
    assert row.split(" | ")[3:8] == ["1.234", "0.068", "0.01", "0.022", "500"]
    assert "| ECE | T | ECE scaled | parameters |" in table.markdown(scaled)
    assert "ECE scaled" in printed(scaled)
    rows = list(csv.DictReader(io.StringIO(table.as_csv(scaled))))
    assert [(row["T"], row["ECE scaled"]) for row in rows] == [
        ("1.234", "0.0111"), ("0.01", "0.0222"), ("100.0", "0.3")
    ]  # fmt: skip
    assert "T: the temperature fitted on val" in table.caption(scaled)


def test_the_caption_names_temperatures_at_a_bound(scaled):
    text = table.caption(scaled)
    assert "T = 0.01 is the limit, and no optimum: all of val is right (a)." in text
    assert "T = 100 is the limit, and no optimum: a uniform prediction" in text
    assert text.count("is the limit") == 2
    for key in ("a", "ensemble"):
        scaled["nets"][key]["scaled"]["temperature"] = 2.0
    assert "is the limit" not in table.caption(scaled)


def test_without_temperatures_nothing_mentions_them(metrics):
    for text in (table.markdown(metrics), printed(metrics), table.as_csv(metrics)):
        assert "scaled" not in text
        assert "T:" not in text


def test_rows_stand_in_the_order_of_the_nets(metrics):
    rows = table.rows_of(metrics)
    assert [row["net"] for row in rows] == [
        "teacher · resnet",
        "a · mlp",
        "ensemble of the students",
    ]


def test_values_of_a_row_and_the_compression_computed_from_them(metrics):
    teacher, a, ensemble = table.rows_of(metrics)
    assert (a["accuracy"], a["last"], a["NLL"], a["ECE"]) == (0.9, 0.85, 1.2345, 0.0678)
    assert (teacher["compression"], a["compression"]) == (1, 2)
    assert (teacher["last"], teacher["agreement"], ensemble["last"]) == (None, None, None)


def test_a_vote_has_no_probabilities(metrics):
    metrics["nets"]["vote"] = {"title": "vote of the students", "test": {"accuracy": 0.94},
                               "parameters": 1000, "throughput": 2000.0}  # fmt: skip
    *_, vote = table.rows_of(metrics)
    assert (vote["accuracy"], vote["NLL"], vote["ECE"]) == (0.94, None, None)
    assert "| vote of the students | 94.00% |  |  |  | 1,000 |" in table.markdown(metrics)
    assert "None" not in printed(metrics) + table.as_csv(metrics)


def test_the_caption_names_averaged_weights(metrics):
    assert "Weights of the students" not in table.caption(metrics)
    metrics["averaging"] = "their mean over the ends of the last 3 epochs (SWA)"
    assert "Weights of the students: their mean over the ends" in table.caption(metrics)
    assert "labels only" not in table.caption(metrics)
    metrics["nets"]["a, labels only"] = metrics["nets"]["a"]
    assert "Those that were trained without a teacher are not averaged." in table.caption(metrics)


def test_without_a_teacher_there_is_no_compression(metrics):
    del metrics["nets"]["teacher"]
    assert [row["compression"] for row in table.rows_of(metrics)] == [None, None]
    assert "Teacher" not in table.caption(metrics)
    assert "None" not in table.markdown(metrics)


def test_print_and_markdown_show_the_same_cells(metrics):
    cells = ["a · mlp", "90.00%", "85.00%", "1.234", "0.068", "500", "2.0x", "95.00%", "4,000"]
    (row,) = [line for line in printed(metrics).splitlines() if "a · mlp" in line]
    assert row.split("  ")[0].strip() == "a · mlp"
    assert [cell.strip() for cell in row.split("  ") if cell.strip()] == cells
    assert f"| {' | '.join(cells)} |" in table.markdown(metrics).splitlines()


def test_a_narrow_terminal_cuts_no_number(metrics):
    assert "4,000" in printed(metrics, width=20)
    assert "…" not in printed(metrics, width=20)


def test_csv_reads_back_at_full_precision(metrics):
    rows = list(csv.DictReader(io.StringIO(table.as_csv(metrics))))
    assert [row["net"] for row in rows] == [net["title"] for net in metrics["nets"].values()]
    assert float(rows[1]["NLL"]) == 1.2345
    assert rows[0]["agreement"] == ""


def test_the_caption_says_how_weights_were_chosen_and_what_was_measured(metrics):
    assert "accuracy: of the weights chosen on val" in table.caption(metrics)
    assert "Teacher: trained, outputs/teachers/x." in table.caption(metrics)
    assert "images/s: forward pass, batches of 64, cpu." in table.caption(metrics)
    metrics["has_val"] = False
    assert "nothing chosen on val: accuracy is that of the last epoch" in table.caption(metrics)


def test_throughput_is_in_the_unit_of_the_data(metrics):
    metrics["unit"] = "series"
    assert "series/s |" in table.markdown(metrics)
    assert "images/s" not in printed(metrics)


def test_nets_that_were_attacked_have_a_column_and_a_line(metrics):
    assert "PGD accuracy" not in printed(metrics)
    metrics["attack"] = {"epsilon": 0.1, "steps": 20, "samples": 1000}
    metrics["nets"]["a"]["test"]["robust_accuracy"] = 0.4321
    rows = {row["net"]: row["PGD accuracy"] for row in table.rows_of(metrics)}
    assert rows == {"teacher · resnet": None, "a · mlp": 0.4321, "ensemble of the students": None}
    assert "43.21%" in printed(metrics)
    assert "share of 1,000 test images that are recognized unchanged" in table.caption(metrics)
