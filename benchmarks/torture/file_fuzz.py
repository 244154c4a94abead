"""Changes small files of every kind at random, and reads them as the framework does.

    python -m benchmarks.torture.file_fuzz --examples 2000 --seed 0
    python -m benchmarks.torture.file_fuzz --kinds ckpt --only 17    one mutant again
    python -m benchmarks.torture.file_fuzz --write      also into results/torture.md

A changed file may be read as before, may have the numbers that an independent reader gives too, or
may be refused in one sentence. Everything else is a finding: a traceback, a wait, other numbers, or
something that is executed. Mutant i of a kind depends on the seed, the kind and i alone.
"""

import faulthandler
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.torture import file_arrays, file_images, file_settings, file_tables, file_weights
from benchmarks.torture.file_kind import Kind, Numbers
from benchmarks.torture.file_mutants import Mutant, mutate
from benchmarks.torture.tool import minutes_since, parser_of, show
from kd_lightning.config.user_messages import user_message

KINDS: dict[str, Kind] = {
    **file_images.KINDS,
    **file_tables.KINDS,
    **file_arrays.KINDS,
    **file_weights.KINDS,
    **file_settings.KINDS,
}
TABLE = "Files changed at random"
LONGEST = 10  # seconds of a processor to read a file of some kilobytes
MEMORY = 16 << 30  # bytes of addresses; the libraries alone take several GiB of them
ALLOWED = ("as before", "as by another reader", "refused")
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "ctypes.dlopen",
    "socket.connect",
    "shutil.rmtree",
    "os.remove",
    "os.rename",
)


class Hang(BaseException):
    """A file was not read after ``LONGEST`` seconds."""


@dataclass(frozen=True)
class Result:
    """What came of a mutant.

    Attributes:
        outcome: one of ``ALLOWED``, or the kind of finding.
        said: the sentence of a refusal, or the traceback.
    """

    outcome: str
    said: str = ""


@contextmanager
def within_time(seconds: float) -> Iterator[None]:
    """Raises ``Hang`` inside after some seconds of work. After many more of waiting, the whole
    process ends, with its stack.
    """

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    faulthandler.dump_traceback_later(60 * seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Audit:
    """Notes what Python code asks of the system while it is on."""

    def __init__(self) -> None:
        self.is_on = False
        self.seen: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple) -> None:
        if self.is_on and event.startswith(FORBIDDEN):
            self.seen.append(f"{event} {arguments!r:.200}")


def same(one: Numbers, other: Numbers) -> bool:
    """Whether two readers found the same names and the same values; NaN equals NaN."""
    return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)


def equal(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        is_equal_nan = one.dtype.kind == "f"
        return one.shape == other.shape and np.array_equal(one, other, equal_nan=is_equal_nan)
    return type(one) is type(other) and one == other


def is_sentence(text: str) -> bool:
    said = re.sub(r"'.*?'", "", text)  # what is quoted may be anything
    is_one = "Traceback" not in said and not re.search(r"[.!?] +[A-Z]", said)
    return bool(text) and text.isprintable() and is_one


def judge(kind: Kind, folder: Path, file: Path, mutant: Mutant, sound: Numbers) -> Result:
    """Reads a changed file.

    Args:
        sound: the numbers before the change.
    """
    try:
        with within_time(LONGEST), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns of damaged tags
            found = kind.read(folder, file)
    except Hang:
        return Result("a wait", traceback.format_exc())
    except Exception as error:
        sentence = user_message(error)
        if not sentence:
            return Result("a traceback", traceback.format_exc())
        return Result("refused" if is_sentence(sentence) else "no sentence", sentence)
    if same(found, sound):
        return Result("as before")
    if mutant.is_same:
        return Result("other numbers", f"the change has no meaning, and now it is {found}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = kind.reread(file)
    except Exception as error:
        return Result("other numbers", f"another reader says {error!r}, and it was read as {found}")
    if same(found, expected):
        return Result("as by another reader")
    return Result("other numbers", f"another reader has {expected}, and it was read as {found}")


def try_kind(
    name: str, numbers: Sequence[int], seed: int, folder: Path, audit: Audit
) -> Iterator[tuple[int, Mutant, Result]]:
    """Mutants of one kind, and what came of each."""
    kind = KINDS[name]
    sound = folder / "sound"
    sound.mkdir(parents=True)
    kind.write(sound)
    before = {name: kind.read(sound, sound / name) for name in kind.files}
    for number in numbers:
        luck = random.Random(f"{seed} {name} {number}")
        changed = luck.choice(kind.files)
        copy = folder / "changed"
        shutil.copytree(sound, copy)
        mutant = mutate((sound / changed).read_bytes(), kind.form, luck)
        (copy / changed).write_bytes(mutant.content)
        audit.seen, audit.is_on = [], True
        result = judge(kind, copy, copy / changed, mutant, before[changed])
        audit.is_on = False
        shutil.rmtree(copy)
        yield number, mutant, Result("executed", str(audit.seen)) if audit.seen else result


def counts_table(counts: dict[str, Counter[str]]) -> Iterator[str]:
    """The lines of a table in Markdown: how often each came, by kind of file."""
    found = sorted({outcome for of_kind in counts.values() for outcome in of_kind} - {*ALLOWED})
    heads = [*ALLOWED, *found]
    yield f"| kind of file | tried | {' | '.join(heads)} |"
    yield "|---" + "|---:" * (len(heads) + 1) + "|"
    total: Counter[str] = sum(counts.values(), Counter())
    for name, of_kind in {**counts, "all": total}.items():
        cells = [f"{of_kind[head]:,}" for head in heads]
        yield f"| {name} | {of_kind.total():,} | {' | '.join(cells)} |"


def main(words: Sequence[str] | None = None) -> int:
    """Returns how many findings there were."""
    parser = parser_of("file_fuzz", __doc__)
    parser.add_argument("--examples", type=int, default=2000, help="mutants in all (2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--only", type=int, help="only the mutant with this number of each kind")
    words = sys.argv[1:] if words is None else words
    arguments = parser.parse_args(words)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    each = -(-arguments.examples // len(arguments.kinds))
    numbers = range(each) if arguments.only is None else [arguments.only]
    start = time.perf_counter()
    counts: dict[str, Counter[str]] = {}
    lost: list[str] = []
    audit = Audit()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.kinds:
            counts[name] = Counter()
            of_kind = Path(folder) / re.sub(r"\W", "-", name)
            for number, mutant, result in try_kind(name, numbers, arguments.seed, of_kind, audit):
                counts[name][result.outcome] += 1
                told = f"{name}, {number} ({mutant.how}): {result.outcome}"
                if result.outcome not in ALLOWED:
                    lost.append(told)
                if result.outcome not in ALLOWED or arguments.only is not None:
                    print(f"{told}\n{result.said}\n", flush=True)
    chosen = [name for name in KINDS if name in arguments.kinds]
    some = "" if len(chosen) == len(KINDS) else f": {', '.join(chosen)}"
    some += "" if arguments.only is None else f", number {arguments.only}"
    show(
        "file_fuzz", TABLE + some, words, counts_table(counts), minutes_since(start),
        lost=lost, write=arguments.write,
    )  # fmt: skip
    return len(lost)


if __name__ == "__main__":
    sys.exit(bool(main()))
