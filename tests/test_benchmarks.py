"""The studies can be run, and what is committed of them is what their records say."""

import json
import re
import shlex
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from helpers import PAGES, compose
from omegaconf import OmegaConf

from benchmarks import loading, studies
from benchmarks.report import Report
from kd_lightning.losses.mutual_information import MutualInformation
from kd_lightning.records.jobs import State
from kd_lightning.reports import build, write
from kd_lightning.reports.columns import OBJECTIVE
from kd_lightning.reports.job_results import FILE, read_jsonl
from kd_lightning.reports.summary import Row, best_row, rows_of
from kd_lightning.sweeps import plan
from kd_lightning.sweeps.overrides import key_of, parse_all
from kd_lightning.sweeps.preset import settings_of

PACKED = sorted(path.parent for path in studies.RESULTS.rglob(FILE))
# of joined parts one is enough: the others differ in the name of the data or the seed
PARTS = [
    (name, part)
    for name, study in studies.STUDIES.items()
    for part in (list(study.parts)[:1] if study.is_joined else study.parts)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part"), PARTS)
def test_every_part_of_a_study_composes(name: str, part: str) -> None:
    of_sweep, of_jobs = plan.split(shlex.split(studies.STUDIES[name].parts[part]))
    settings, _, _ = settings_of(of_sweep, None)
    one_seed = [word for word in of_jobs if not word.startswith("seed=")]
    jobs = plan.expand(settings, [*one_seed, "seed=0"])
    # all rows of each preset are composed in tests/sweeps/test_plan.py
    plan.job_specs([jobs[0], jobs[-1]], folder=".", config_dir=None)
    assert len({(job.variant, str(job.axes.get("data.name"))) for job in jobs}) == len(jobs)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["ssd_ucr", "ssd_ucr_early", "ucr_averages", "dual_variants"])
def test_all_rows_of_a_study_have_one_teacher(preset: str) -> None:
    settings, _, _ = settings_of([f"sweep={preset}"], None)
    jobs = plan.expand(settings, ["seed=0"])
    found = set()
    for job in jobs:
        cfg = plan.compose_job(job.overrides, None)
        teacher = OmegaConf.masked_copy(cfg, ["teacher", "data", "seed", "task", "outputs"])
        teacher.net = cfg.method.teacher
        found.add(str(OmegaConf.to_container(teacher, resolve=True)))
    assert len(jobs) > 1
    assert len(found) == 1


def test_there_are_results() -> None:
    assert PACKED


@pytest.mark.parametrize("packed", PACKED, ids=lambda path: str(path.relative_to(studies.RESULTS)))
def test_committed_tables_follow_from_committed_records(packed: Path, tmp_path: Path) -> None:
    write(build([packed]), tmp_path)
    for name in ("table.md", "table.csv", "values.csv", "sweep.yaml", FILE):
        assert (tmp_path / name).read_text() == (packed / name).read_text(), name


def text_of(path: Path) -> str:
    """A table's text. The last digits depend on SciPy and NumPy: under other versions than the
    pinned ones, which made the tables, each number is rounded to six digits.
    """
    pins = (Path(__file__).parent.parent / "constraints.txt").read_text().splitlines()
    if all(f"{name}=={version(name)}" in pins for name in ("scipy", "numpy")):
        return path.read_text()
    return re.sub(r"\d+\.\d{9,}(e-?\d+)?", lambda n: f"{float(n[0]):.6g}", path.read_text())


@pytest.mark.parametrize(
    "name", [name for name, study in studies.STUDIES.items() if study.is_joined]
)
def test_joined_tables_follow_from_the_records_of_their_parts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = studies.RESULTS / name
    if not committed.exists():
        pytest.skip("no part of it has been run")
    shutil.copytree(committed, tmp_path / name)
    (tmp_path / name / "table.md").unlink()
    monkeypatch.setattr(studies, "RESULTS", tmp_path)
    studies.join(name)
    for file in committed.iterdir():
        if file.suffix in (".md", ".csv", ".tex"):
            assert text_of(tmp_path / name / file.name) == text_of(file), file
    assert not (tmp_path / name / FILE).exists()


@pytest.mark.parametrize("packed", PACKED, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_table_says_what_made_it(packed: Path) -> None:
    older = {"kd_tuning/digits", "kd_tuning/40_percent_noise"}
    says = "Made by python -m kd_lightning.run -m " in (packed / "table.md").read_text()
    assert says == ("/".join(packed.parts[-2:]) not in older)


def test_a_part_whose_records_are_there_is_done_and_one_that_lacks_some_is_not(
    tmp_path: Path,
) -> None:
    records = (PACKED[0] / FILE).read_text()
    assert all(result.state == State.DONE for result in read_jsonl(PACKED[0] / FILE))
    (tmp_path / FILE).write_text(records)
    assert studies.is_done(tmp_path)
    (tmp_path / FILE).write_text(records.replace('"state": "done"', '"state": "failed"', 1))
    assert not studies.is_done(tmp_path)
    assert not studies.is_done(tmp_path / "elsewhere")


def test_a_part_that_other_words_made_is_told_from_one_of_today(tmp_path: Path) -> None:
    command = ["-m", "sweep=ssd_ucr", "data.name=GunPoint", "threads=1", "sweep.dir=/x"]
    (tmp_path / "sweep.yaml").write_text(json.dumps({"command": command}))
    today = f"sweep=ssd_ucr data.name=GunPoint {studies.BARE}"
    assert studies.other_words(tmp_path, today) == []
    assert studies.other_words(tmp_path, f"{today} seed=3") == ["seed=3"]
    assert studies.other_words(tmp_path, f"sweep=ssd_ucr {studies.BARE}") == ["data.name=GunPoint"]


def test_a_part_with_a_failed_job_is_not_written_over_what_is_committed(tmp_path: Path) -> None:
    begun, folder = tmp_path / "begun", tmp_path / "committed"
    shutil.copytree(PACKED[0], begun)
    records = (begun / FILE).read_text().replace('"state": "done"', '"state": "failed"', 1)
    (begun / FILE).write_text(records)
    folder.mkdir()
    with pytest.raises(SystemExit, match=r"^1 of .* jobs are not done, so nothing was written"):
        studies.write_tables([begun], folder)
    assert not list(folder.iterdir())


def test_a_sweep_that_was_begun_with_other_words_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("command: [-m, sweep=other]")
    with pytest.raises(SystemExit, match="holds another sweep, -m sweep=other: remove it"):
        studies.run("sweep=ssd_ucr", tmp_path)


def test_a_study_or_a_part_of_one_can_be_asked_for() -> None:
    asked = [
        (study, part)
        for study, part, _ in studies.parts_of(["sensitivity/bandwidth", "methods_digits"])
    ]
    of_methods = [("methods_digits", part) for part in studies.STUDIES["methods_digits"].parts]
    assert asked == [("sensitivity", "bandwidth"), *of_methods]


@pytest.mark.parametrize(
    ("name", "said"),
    [("ssd", "no study 'ssd': expected"), ("ssd_ucr/X", "no part 'X' of ssd_ucr: it has Italy")],
)
def test_a_study_that_does_not_exist_is_refused(
    name: str, said: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        studies.main([name])
    assert said in capsys.readouterr().err


DIGITS = ["dual_digits/{}", "methods_digits/{}"]


@pytest.mark.parametrize(
    ("table", "column", "studies_of", "rows"),
    [
        (0, 1, [name.format("all_labels") for name in DIGITS], 12),
        (0, 2, [name.format("40_percent_noise") for name in DIGITS], 12),
        (1, 1, ["zoo"], 12),
        (1, 3, ["zoo"], 12),
        (2, 1, ["ssd_ucr"], 4),
        (2, 2, ["ssd_ucr_early"], 4),
    ],
)
def test_the_gains_in_the_documents_are_those_of_the_committed_studies(
    table: int, column: int, studies_of: list[str], rows: int
) -> None:
    section = PAGES["docs/methods.md"].split("\n## What they were worth\n")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^\|.*\n)+", section, re.M)
    cells = [line.strip("|").split("|") for line in blocks[table].splitlines()[2:]]
    gains = [row[column].strip(" *") for row in cells]
    written = "".join((studies.RESULTS / name / "table.md").read_text() for name in studies_of)
    assert len(gains) == rows
    for gain in gains:
        difference, interval = re.fullmatch(r"(\S+) \((.+)\)", gain).groups()
        assert f"| {difference} | {interval} |" in written, gain


DOCUMENTS = " ".join(" ".join(PAGES.values()).split())


@pytest.mark.parametrize(
    ("text", "least"),
    [((studies.RESULTS / "README.md").read_text(), 60), (DOCUMENTS, 35)],
    ids=["results", "documents"],
)
def test_the_differences_that_are_stated_stand_in_the_tables(text: str, least: int) -> None:
    text = " ".join(text.split())
    said = re.findall(
        r"([+−]\d+\.\d+|0\.00) \(([+−]\d+\.\d+ to [+−]\d+\.\d+)(?:, (?:but )?p = (\d\.\d+))?", text
    )
    tables = "".join(path.read_text() for path in studies.RESULTS.rglob("table.md"))
    assert len(said) > least
    for difference, interval, p in said:
        row = re.escape(f"| {difference} | {interval} |") + (
            # in newer tables the interval with other test samples comes before p
            rf"(?: [+−]\d\S+ to [+−]\d\S+ \|)? (?:\\< )?\S+ \| {p} \|" if p else ""
        )
        assert re.search(row, tables), (difference, interval, p)


# The weights of sweep=zoo are those that sweep=zoo_tuning chose on val.

TUNING = studies.RESULTS / "zoo_tuning" / "fashion_mnist"
ZOO = settings_of(["sweep=zoo"], None)[0]
SYSTEMS = [a for a, b in ZOO.pairs if b == "kd"] + ["kd"]
# control in sweep=zoo -> the keys that make it one
CONTROLS = {
    "labels only": {"method.soft_weight"},
    "labels + mixup": {"method.soft_weight"},
    "SRD, features alone": {"method.semantic_weight"},
    "MIMKD, shuffled pairs": {"method.feature_loss.shuffled"},
    "TESKD, deep supervision": {"method.soft_weight", "method.feature_weight"},
    "MAG, random codes": {"method.stage_recipe.share"},
    "MAG, no codes": {"method.granularity_weight"},
    "KCD, identity": {"method.matching"},
    "KCD, random channels": {"method.matching"},
    "SFTN, linear branches": {"teacher.method.branches"},
    "UNIX, random samples": {"method.score", "method.mix"},
    "UNIX, plain mixup": {"method.score", "method.steepness"},
    "SSKD, rotations as augmentation": {
        "method.hard_views",
        *(f"method.{term}_weight" for term in ("hard", "soft", "transformed", "similarity")),
    },
    "DiffKD, no diffusion": {"method.denoiser"},
    "DSKD, no diffusion": {"method.denoiser"},
    "SoKD, random policy": {"method.policy"},
}


@pytest.fixture(scope="module")
def tuned() -> dict[str, list[Row]]:
    """System -> its rows in zoo_tuning, one for each setting of its weights."""
    found: dict[str, list[Row]] = {}
    for row in rows_of(read_jsonl(TUNING / FILE), search=False):
        system, _, _ = row.label.rpartition(", ")
        found.setdefault(system, []).append(row)
    return found


def settings_of_row(words: Sequence[str]) -> dict:
    """What a row's words set, with the default weight of MIMKD as a number."""
    cfg = compose(*ZOO.overrides, "data=fashion_mnist", *words)
    if cfg.method.get("feature_weight", 0) is None:
        cfg.method.feature_weight = MutualInformation.field_weight
    return OmegaConf.to_container(cfg, resolve=True)


def test_each_system_of_the_zoo_was_tuned_with_three_settings(tuned: dict[str, list[Row]]) -> None:
    assert sorted(tuned) == sorted(SYSTEMS)
    assert {len(rows) for rows in tuned.values()} == {3}
    seeds = {result.seed for rows in tuned.values() for row in rows for result in row.results}
    assert not seeds & set(ZOO.grid["seed"])


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_zoo_has_the_weights_that_were_chosen_on_val(
    system: str, tuned: dict[str, list[Row]]
) -> None:
    best = best_row(tuned[system], OBJECTIVE)
    chosen = OmegaConf.load(TUNING / "sweep.yaml").variants[best.label]
    own = ZOO.variants[system]
    if set(own) != set(chosen):  # composing takes time
        assert settings_of_row(own) == settings_of_row(chosen), best.label


def test_a_control_differs_from_its_system_only_in_what_makes_it_one() -> None:
    pairs = [(system, control) for system, control in ZOO.pairs if control != "kd"]
    assert [control for _, control in pairs] == list(CONTROLS)
    for system, control in pairs:
        words, others = (
            {word.input_line for word in parse_all(ZOO.variants[name])
             if key_of(word) not in CONTROLS[control]}
            for name in (system, control)
        )  # fmt: skip
        assert words == others, control
        assert set(ZOO.variants[control]) != set(ZOO.variants[system]), control


def test_the_committed_zoo_ran_with_the_words_of_its_preset() -> None:
    for part in studies.STUDIES["zoo"].parts:
        ran = OmegaConf.load(studies.RESULTS / "zoo" / part / "sweep.yaml")
        assert OmegaConf.to_container(ran.variants) == ZOO.variants, part


@pytest.mark.slow
@pytest.mark.parametrize("name", loading.TABLES)
def test_what_is_compared_in_loading_gives_alike_batches(name: str, tmp_path: Path) -> None:
    for title, samples, a, b in loading.TABLES[name](tmp_path):
        (x, y), (x2, y2) = a(), b()
        assert (x.shape, x.dtype, y.shape) == (x2.shape, x2.dtype, y2.shape), title
        assert len(x) == samples
        if title.startswith("test"):
            assert torch.equal(y, torch.zeros(samples, dtype=torch.long))  # in order


def test_the_costs_in_the_documents_are_those_of_the_committed_tables() -> None:
    said = re.findall(r"(?<![+−])(\d\.\d\d) \((\d\.\d\d to \d\.\d\d)", DOCUMENTS)
    tables = [studies.RESULTS / f"{name}.md" for name in ("loading", "speed", "ssd_cost")]
    written = "".join(path.read_text() for path in tables)
    assert len(said) > 20
    for ratio, interval in said:
        assert f"| {ratio} | {interval} |" in written, (ratio, interval)
    assert "Too noisy" not in written


def test_a_table_that_is_measured_again_replaces_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.report.RESULTS", tmp_path)
    for name in ("one", "two", "one"):
        report = Report("figures", "Figures", [f"--only={name}"])
        report.add(f"\n## {name}\n")
        report.add("| a |")
        report.write([name])
    *_, last = parts = (tmp_path / "figures.md").read_text().split("\n\n## ")
    assert [part.split("\n\n")[:2] for part in parts[1:]] == [["one", "| a |"], ["two", "| a |"]]
    assert last.startswith("two\n\n| a |\n\nMade by `python -m benchmarks.figures --only=two`")
