"""A program: uses a received run by every command, and prints what Python's audit hooks see.

python tests/audited_commands.py <an empty folder>
"""

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

WATCHED = (
    *("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"),
    *("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"),
)
SEEN: list[tuple[str, str]] = []


def watch(event: str, arguments: tuple) -> None:
    if event in WATCHED:
        what = arguments[0] if event == "subprocess.Popen" else arguments
        SEEN.append((event, str(what)))


sys.addaudithook(watch)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from helpers import TINY  # noqa: E402

import kd_lightning  # noqa: E402
from kd_lightning import distill, evaluate, export, predict, report  # noqa: E402


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.mkdir, (self.mark,)


def use(run: Path, place: Path) -> None:
    """Reads a run by every command."""
    np.savez(place / "x.npz", x=np.zeros((2, 3, 16, 16), "uint8"))
    distill(f"resume={run}")
    distill(*TINY, "method=kd", f"teacher.source={run}", f"outputs={place}", "threads=1")
    kd_lightning.load(run)
    predict.main([str(run), str(place / "x.npz"), "--out", str(place / "rows.csv")])
    evaluate.main([str(run)])
    report.main([str(run), "--html", str(place / "page.html")])
    export.main([str(run), "--out", str(place / "new"), "--format", "torchscript"])


def put_pickles(run: Path, mark: Path) -> None:
    """Replaces all binary files of a run by pickles that call a function."""
    for path in run.rglob("*"):
        if path.suffix == ".ckpt":
            torch.save({"state_dict": Evil(mark), "epoch": Evil(mark)}, path)
        elif path.suffix == ".npz":
            np.savez(path, labels=np.array([Evil(mark)], dtype=object))
        elif path.suffix == ".safetensors":
            path.write_bytes(pickle.dumps(Evil(mark)))


def main(place: Path) -> None:
    words = [word for word in TINY if not word.startswith("teacher.")]
    run = place / "run"
    distill(*words, "method=supervised", "threads=1", f"run_dir={run}", f"outputs={place}")
    use(run, place)
    mark = place / "called"
    put_pickles(run, mark)
    older = shutil.copytree(run, place / "older", ignore=shutil.ignore_patterns("students"))
    for received in (run, older):
        for read in (
            lambda path: distill(f"resume={path}"),
            kd_lightning.load,
            lambda path: report.main([str(path), "--html", str(place / "other.html")]),
        ):
            with suppress(Exception, SystemExit):
                read(received)
    print(json.dumps({"seen": SEEN, "called": mark.exists()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
