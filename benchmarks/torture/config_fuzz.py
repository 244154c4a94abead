"""Types mistakes into every key of a run, and counts how the runs end.

    python -m benchmarks.torture.config_fuzz --examples 1000 --seed 0
    python -m benchmarks.torture.config_fuzz --write      also into results/torture.md

Each run is composed, checked and built; of those that are accepted some are trained. Right is a run
that is accepted or refused in one sentence. Each finding is shown with the fewest overrides that
make it.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks.torture.config_space import command_lines
from benchmarks.torture.outcomes import Outcome, Worker
from benchmarks.torture.tool import minutes_since, parser_of, show

TABLE = "Random mistakes in keys"
RIGHT = ("clean", "sentence")
KINDS = (*RIGHT, "traceback", "crash", "hang")
Run = Callable[[Sequence[str], bool], Outcome]


class Enough(Exception):
    """There are as many command lines as were asked for."""


def examples(count: int, number: int) -> list[tuple[str, ...]]:
    """``count`` command lines with different keys, the same for the same number."""
    found: dict[tuple[str, ...], tuple[str, ...]] = {}

    @seed(number)
    @settings(
        max_examples=4 * count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(command_lines())
    def collect(words: tuple[str, ...]) -> None:
        if len(found) >= count:
            raise Enough
        # Hypothesis also varies the values of the same keys
        found.setdefault(tuple(word.partition("=")[0] for word in words), words)

    with suppress(Enough):
        collect()
    return list(found.values())


def shortest(words: tuple[str, ...], train: bool, wrong: Outcome, run: Run) -> tuple[str, ...]:
    """``words`` without those that the finding does not need."""
    for word in words:
        fewer = tuple(one for one in words if one != word)
        if run(fewer, train) == wrong:
            words = fewer
    return words


def fuzz(count: int, number: int, every: int, run: Run) -> tuple[Counter, dict[Outcome, tuple]]:
    """Outcomes by kind, and for each kind of finding the shortest command line.

    Args:
        every: of so many accepted runs one is trained; 0: none is.
    """
    counts: Counter = Counter()
    findings: dict[Outcome, tuple] = {}
    for words in examples(count, number):
        outcome, train = run(words, False), False
        counts["built", outcome.kind] += 1
        if outcome.kind == "clean" and every and counts["built", "clean"] % every == 0:
            outcome, train = run(words, True), True
            counts["trained", outcome.kind] += 1
        if outcome.kind not in RIGHT and outcome not in findings:
            findings[outcome] = shortest(words, train, outcome, run)
            say(f"{outcome.kind}: {' '.join(findings[outcome])}\n    {outcome.said}")
    return counts, findings


def table(counts: Counter) -> Iterator[str]:
    """The lines of a table in Markdown: how runs ended, when they were built and when trained."""
    yield "| | tried | " + " | ".join(KINDS) + " |"
    yield "|---" + "|---:" * (len(KINDS) + 1) + "|"
    for stage in ("built", "trained"):
        cells = [counts[stage, kind] for kind in KINDS]
        yield f"| {stage} | " + " | ".join(f"{cell:,}" for cell in (sum(cells), *cells)) + " |"


def say(text: str) -> None:
    print(text, flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """Returns how many kinds of findings there were."""
    parser = parser_of("config_fuzz", __doc__)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-every", type=int, default=20, help="of the accepted runs; 0: none")
    words = sys.argv[1:] if words is None else words
    arguments = parser.parse_args(words)
    start = time.perf_counter()
    worker = Worker()
    try:
        counts, findings = fuzz(
            arguments.examples, arguments.seed, arguments.train_every, worker.outcome
        )
    finally:
        worker.close()
    lost = [f"{wrong.kind}: `{' '.join(found)}`" for wrong, found in findings.items()]
    show(
        "config_fuzz", TABLE, words, table(counts), minutes_since(start),
        lost=lost, write=arguments.write,
    )  # fmt: skip
    return len(findings)


if __name__ == "__main__":
    sys.exit(bool(main()))
