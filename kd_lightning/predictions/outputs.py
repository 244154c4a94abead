"""The table of predictions as .csv, .json, .jsonl or .parquet, written row by row.

A file has another name until it is complete, so an interrupted prediction leaves none.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import atomic_write

Row = Mapping[str, Any]
Write = Callable[[Sequence[Row]], Any]
ROWS_AT_ONCE = 8192  # of a .parquet file, whose parts should not be small


def check_output(out: str | None, embeddings: bool) -> None:
    """Raises ``UserError`` for a file that cannot be written.

    Args:
        out: the file; None or "-": CSV on the standard output.
        embeddings: whether the rows have lists.
    """
    suffix = ".csv" if out in (None, "-") else Path(out).suffix.lower()
    if suffix not in WRITERS:
        raise UserError(f"--out must end with {', '.join(WRITERS)} or be -, got {out}")
    if embeddings and suffix == ".csv":
        raise UserError("--embeddings are lists, which .csv cannot hold: write .parquet or .jsonl")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise UserError(
            '.parquet needs pyarrow: pip install "kd_lightning[parquet]", or write .csv or .jsonl'
        )
    if out is not None and Path(out).is_dir():
        raise UserError(f"--out {out} is a folder: name a file")
    if out is not None and not Path(out).parent.is_dir():
        raise UserError(f"there is no folder {Path(out).parent} to write {out} into")


def check_inputs_stay(out: str | None, files: Iterable[Path]) -> None:
    """Raises ``UserError`` if the predictions would replace one of the files that they are of."""
    if out not in (None, "-") and Path(out).resolve() in {path.resolve() for path in files}:
        raise UserError(f"--out {out} would replace an input: choose another file")


@contextmanager
def open_output(out: str | None, columns: Sequence[str]) -> Iterator[Write]:
    """Gives a function that writes rows, each with all ``columns``; see ``check_output``."""
    if out in (None, "-"):
        yield csv_writer(sys.stdout, columns)
        return
    path = Path(out)
    with atomic_write(path) as unfinished, WRITERS[path.suffix.lower()](unfinished, columns) as f:
        yield f


def csv_writer(file: TextIO, columns: Sequence[str]) -> Write:
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    return writer.writerows


@contextmanager
def csv_output(path: Path, columns: Sequence[str]) -> Iterator[Write]:
    with path.open("w", newline="", encoding="utf-8") as file:
        yield csv_writer(file, columns)


@contextmanager
def jsonl_output(path: Path, columns: Sequence[str]) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda rows: file.writelines(f"{as_json(row)}\n" for row in rows)


@contextmanager
def json_output(path: Path, columns: Sequence[str]) -> Iterator[Write]:
    """One list, with a row on each line."""
    before = "[\n"
    with path.open("w", encoding="utf-8") as file:

        def write(rows: Iterable[Row]) -> None:
            nonlocal before
            for row in rows:
                file.write(f"{before}{as_json(row)}")
                before = ",\n"

        yield write
        file.write("[]\n" if before == "[\n" else "\n]\n")


def as_json(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False)


@contextmanager
def parquet_output(path: Path, columns: Sequence[str]) -> Iterator[Write]:
    import pyarrow
    from pyarrow import parquet

    types = {"index": pyarrow.int64(), "embedding": pyarrow.list_(pyarrow.float32())}
    schema = pyarrow.schema(
        (name, types.get(name, pyarrow.float32() if "probability" in name else pyarrow.string()))
        for name in columns
    )
    waiting: list[Row] = []
    with parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(waiting, schema))
            waiting.clear()

        def write(rows: Iterable[Row]) -> None:
            waiting.extend(rows)
            if len(waiting) >= ROWS_AT_ONCE:
                flush()

        yield write
        flush()


WRITERS: dict[str, Callable[[Path, Sequence[str]], AbstractContextManager[Write]]] = {
    ".csv": csv_output,
    ".json": json_output,
    ".jsonl": jsonl_output,
    ".parquet": parquet_output,
}
