"""Which classes a net confuses: a matrix, and the pairs that are confused most often."""

import numpy as np

from kd_lightning.base.confusion import confusion_matrix
from kd_lightning.base.tables import Table
from kd_lightning.reports.page.blocks import Block, ShadedCell, ShadedTable, SortableTable
from kd_lightning.reports.page.records import RunRecord

MAX_CLASSES = 20  # with more there is only the table of pairs
MAX_PAIRS = 15


def confusion_blocks(record: RunRecord, net: str) -> list[Block]:
    """The matrix of one net, or its most confused pairs; [] without its predictions."""
    predictions = record.predictions
    if predictions is None or f"{net}/predicted" not in predictions:
        return []
    labels, predicted = predictions["labels"], predictions[f"{net}/predicted"]
    num_classes = 1 + int(max(labels.max(), predicted.max()))
    names = ((record.environment or {}).get("data") or {}).get("class_names") or []
    matrix = confusion_matrix(predicted, labels, max(num_classes, len(names)))
    if len(matrix) <= MAX_CLASSES:
        return [_matrix_table(record, net, matrix)]
    return [_pair_table(record, net, matrix)]


def _matrix_table(record: RunRecord, net: str, matrix: np.ndarray) -> ShadedTable:
    names = [record.class_name(label) for label in range(len(matrix))]
    rows = []
    for label, row in enumerate(matrix.tolist()):
        total = max(sum(row), 1)
        cells = [
            ShadedCell(
                str(count) if count else "",
                # errors are few: the root makes a single one visible
                count / total if label == predicted else (count / total) ** 0.5,
                ("right" if label == predicted else "wrong") if count else "none",
                f"{count} of {sum(row)} samples of {names[label]} are taken for {names[predicted]}",
            )
            for predicted, count in enumerate(row)
        ]
        rows.append((names[label], cells))
    note = "Rows: the right class. Columns: the predicted class. Numbers of test samples."
    return ShadedTable(f"Confusion matrix of {net}", "right ↓ predicted →", names, rows, note)


def _pair_table(record: RunRecord, net: str, matrix: np.ndarray) -> SortableTable:
    errors = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-errors, axis=None, kind="stable")[:MAX_PAIRS]
    rows = []
    for label, predicted in zip(*np.unravel_index(order, errors.shape), strict=True):
        if count := int(errors[label, predicted]):
            share = f"{100 * count / matrix[label].sum():.1f}"
            names = record.class_name(int(label)), record.class_name(int(predicted))
            rows.append([*names, str(count), share])
    heads = ["right class", "predicted class", "samples", "of this class, %"]
    note = f"The {len(rows)} pairs that are confused most often, of {len(matrix)} classes."
    return SortableTable(Table("pairs", f"Confused by {net}", heads, rows, [note]))
