from made_runs import write_run

from kd_lightning import reports
from kd_lightning.reports.page.blocks import ShadedTable, SortableTable
from kd_lightning.reports.page.confusion import MAX_CLASSES, confusion_blocks
from kd_lightning.reports.page.records import records_of


def record(folder, num_classes):
    write_run(folder, names=[f"n{i}" for i in range(num_classes)], num_test=3 * num_classes)
    return records_of(reports.build([folder]).source.results, [folder])[0]


def test_few_classes_are_a_matrix_that_counts_every_sample(tmp_path):
    (block,) = confusion_blocks(record(tmp_path / "run", 4), "a")
    assert isinstance(block, ShadedTable)
    assert block.heads == ["n0", "n1", "n2", "n3"]
    assert sum(int(cell.text or 0) for _, cells in block.rows for cell in cells) == 12
    assert {cells[i].style for i, (_, cells) in enumerate(block.rows)} <= {"right", "none"}


def test_many_classes_are_a_table_of_the_most_confused(tmp_path):
    written = record(tmp_path / "run", MAX_CLASSES + 1)
    (block,) = confusion_blocks(written, "b")
    assert isinstance(block, SortableTable)
    counts = [int(row[2]) for row in block.table.rows]
    assert counts == sorted(counts, reverse=True)
    assert all(row[0] != row[1] for row in block.table.rows)


def test_a_net_without_predictions_has_no_matrix(tmp_path):
    assert confusion_blocks(record(tmp_path / "run", 3), "vote") == []
