"""From the words of a command line to jobs."""

import re
from dataclasses import replace

import pytest
from helpers import CONF, STEPPED
from omegaconf import OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.reports.columns import default_columns
from kd_lightning.reports.job_results import JobResult
from kd_lightning.reports.published import read_published
from kd_lightning.sweeps import plan
from kd_lightning.sweeps.overrides import value_of
from kd_lightning.sweeps.plan import (
    compose_job,
    expand,
    job_specs,
    split,
    title_of,
    variation_of,
)
from kd_lightning.sweeps.preset import Settings, settings_of

PRESETS = sorted(path.stem for path in (CONF / "sweep").glob("[!_]*.yaml"))
# these have many data sets, and one is enough to compose all rows
ONE_DATA_SET = {"ucr_archive": ["data.name=ACSF1"], "biovid_loso": ["data.fold=0"]}


def plain() -> Settings:
    return settings_of([], None)[0]


def test_words_are_split_into_those_for_the_sweep_and_those_for_the_jobs() -> None:
    words = ["sweep=seeds", "method=kd", "launcher.workers=2", "sampler@sweep.search.sampler=tpe"]
    assert split([*words, "seed=0,1"]) == ([words[0], *words[2:]], ["method=kd", "seed=0,1"])


@pytest.mark.parametrize("word", ["hydra/sweeper=optuna", "hydra.sweep.dir=x", "hydra/launcher=x"])
def test_words_for_hydra_itself_are_refused(word: str) -> None:
    with pytest.raises(UserError, match="has no effect on a sweep: choose sweep=…, launcher=…"):
        split([word])


def test_every_combination_is_a_job_and_each_seed_has_all_rows_first() -> None:
    jobs = expand(plain(), ["method.temperature=1,2", "seed=0,1", "method=kd"])
    assert [job.axes for job in jobs] == [
        {"method.temperature": 1, "seed": 0},
        {"method.temperature": 2, "seed": 0},
        {"method.temperature": 1, "seed": 1},
        {"method.temperature": 2, "seed": 1},
    ]
    assert [job.variant for job in jobs[:2]] == ["method.temperature=1", "method.temperature=2"]
    assert jobs[1].overrides == ("method.temperature=2", "seed=0", "method=kd")


def test_the_command_of_the_readme_is_48_jobs() -> None:
    words = [
        "method.temperature=1,2,4,8",
        "method.confidence_threshold=0,0.25,0.5,0.75",
        "seed=0,1,2",
    ]
    jobs = expand(plain(), words)
    assert len(jobs) == 48
    assert len({job.variant for job in jobs}) == 16
    assert len({job.overrides for job in jobs}) == 48


def test_the_command_line_wins_over_the_preset() -> None:
    settings = Settings(
        overrides=["method=kd", "trainer.max_epochs=30"],
        grid={"seed": [0, 1, 2], "method.temperature": [1, 2]},
    )
    words = ["trainer.max_epochs=1", "method.temperature=4,8", "seed=5"]
    jobs = expand(settings, words)
    assert [job.axes for job in jobs] == [{"method.temperature": 4}, {"method.temperature": 8}]
    assert jobs[0].overrides == (
        "method=kd",
        "trainer.max_epochs=1",
        "method.temperature=4",
        "seed=5",
    )


def test_variants_are_named_rows_with_every_cell_of_the_grid() -> None:
    settings = Settings(
        overrides=["method.temperature=4"],
        variants={"kd": ["method.peer_weight=0"], "hot": ["method.temperature=8"]},
        grid={"seed": [0, 1], "data.batch_size": [16, 32]},
    )
    jobs = expand(settings, [])
    assert len(jobs) == 8
    assert jobs[3].variant == "hot data.batch_size=32"
    assert jobs[3].axes == {"variant": "hot", "data.batch_size": 32, "seed": 0}
    # the variant's own temperature replaces that of all jobs
    assert [o for o in jobs[3].overrides if "temperature" in o] == ["method.temperature=8"]


def test_a_row_is_named_by_what_varies() -> None:
    settings = Settings(grid={"method": ["kd"], "method.temperature": [2, 4]})
    variations = plan.expand(settings, ["seed=0,1"])
    assert {variation.variant for variation in variations} == {
        "method.temperature=2",
        "method.temperature=4",
    }
    assert all(variation.axes["method"] == "kd" for variation in variations)


def test_data_sets_do_not_make_rows() -> None:
    settings = plain()
    jobs = expand(settings, ["data=digits,synthetic", "method=kd,supervised"])
    assert {job.variant for job in jobs} == {"method=kd", "method=supervised"}
    assert jobs[0].axes == {"data": "digits", "method": "kd"}


@pytest.mark.parametrize(
    ("word", "cells"),
    [
        ("seed=range(0,3)", [0, 1, 2]),
        ("title=a,'b c'", ["a", "b c"]),
        ("method.learning_rates={a:0.1},{a:0.2}", [{"a": 0.1}, {"a": 0.2}]),
        ("optimizer=glob(adam*)", ["adamw"]),
        ("baselines=null,labels_only", [None, "labels_only"]),
    ],
)
def test_hydras_ways_to_list_values(word: str, cells: list) -> None:
    key = word.split("=")[0]
    assert [job.axes[key] for job in expand(plain(), [word])] == cells


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=0,1,0"], "seed=0 occurs twice in the sweep"),
        (["seed=interval(0,1)"], r"is not a list of values: give them one by one, seed=1,2,3"),
        (["run_dir=a,b"], "run_dir=… is for one run"),
        (["optimizer=glob(x*)"], "optimizer must have at least one value to sweep over"),
    ],
)
def test_words_that_cannot_be_swept_over_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        expand(plain(), words)


def test_the_label_of_a_trial_is_rounded_and_its_values_are_not() -> None:
    trial = variation_of({"overrides": ["method=kd"]}, {"method.temperature": 2.8823351409884284})
    assert trial.variant == "method.temperature=2.882"
    assert trial.overrides == ("method=kd", "method.temperature=2.8823351409884284")


COMPOSED: set[tuple[str, str]] = set()


def known(job: plan.Variation) -> bool:
    """Whether each key of a job has been composed with its method already, in this process. Presets
    of one study share most of their rows, which differ in numbers.
    """
    (method,) = [word for word in job.overrides if word.startswith("method=")][-1:] or [""]
    keys = {(method, re.sub(r"=[-\d.e]+$", "", word)) for word in job.overrides}
    is_known = keys <= COMPOSED
    COMPOSED.update(keys)
    return is_known


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "search"])
def test_every_preset_composes(preset: str) -> None:
    settings, _, name = settings_of([f"sweep={preset}"], None)
    jobs = expand(settings, ONE_DATA_SET.get(preset, []))
    composed = [jobs[0], jobs[-1]]
    if preset not in STEPPED:
        composed += [job for job in jobs[1:-1] if not known(job)]
    found, (first, *_) = job_specs(composed, folder=".", config_dir=None)
    assert len(found) == len(composed)
    assert name == preset
    assert title_of(settings, name, jobs)
    assert first.method
    rows = {job.variant for job in (*jobs, *found)}
    for pair in settings.pairs:
        for name in pair:
            label = name.partition(" @ ")[0]  # what follows is a net
            assert label in rows or any(label in row.split(" ") for row in rows)
    for entry in read_published(settings.reported):
        assert set(entry.rows) <= rows
        # a preset for one problem at a time is given its name
        typed = [f"data.name={name}" for key, name in entry.where.items() if key == "data.name"]
        results = [
            JobResult("", number, job.variant, job.axes, [*job.overrides, *typed])
            for number, job in enumerate(jobs)
        ]
        assert any(entry.belongs_to(result) for result in results)
        assert entry.mean_over is None or entry.mean_over in settings.data_sets
        nets = first.method.students
        values = {f"{part}/{net}/accuracy": 1.0 for part in ("test", "last") for net in nets}
        shown = settings.columns or default_columns([values])
        assert {column for row in entry.rows.values() for column in row} <= set(shown)


def test_each_row_and_each_data_set_is_composed_but_not_every_combination(monkeypatch) -> None:
    composed = []

    def count(overrides, *others):
        composed.append(overrides)
        return compose_job(overrides, *others)

    monkeypatch.setattr(plan, "compose_job", count)
    words = ["data=biovid", "method=kd,supervised", "data.fold=0,1,2", "seed=0,1"]
    found, _ = job_specs(expand(plain(), words), folder=".", config_dir=None)
    assert len(found) == 12
    assert [value_of(o) for words in composed for o in words if "fold" in o] == [0, 1, 2, 0]
    assert {spec.variant for spec in found} == {"method=kd", "method=supervised"}


def test_a_wrong_data_set_among_many_is_refused() -> None:
    words = ["data=biovid", "data.fold=0,1,x"]
    with pytest.raises(UserError, match=r"data\.fold must be a whole number, got x"):
        job_specs(expand(plain(), words), folder=".", config_dir=None)


def test_an_order_has_what_a_launcher_needs() -> None:
    words = ["hardware=ddp", "hardware.devices=2,1", "hardware.accelerator=cpu", "data=digits"]
    found, _ = job_specs(expand(plain(), words), folder="here", config_dir=None)
    assert [(spec.devices, spec.num_nodes, spec.accelerator, spec.threads) for spec in found] == [
        (2, 1, "cpu", 1),
        (1, 1, "cpu", 1),
    ]
    assert found[0].variant == "hardware.devices=2"


def test_a_word_for_all_jobs_is_left_out_of_those_on_which_it_has_no_effect() -> None:
    words = ["method=kd,supervised", "teacher.seed=3", "seed=0,1"]
    found, _ = job_specs(expand(plain(), words), folder=".", config_dir=None)
    of_teacher = {spec.variant: "teacher.seed=3" in spec.overrides for spec in found}
    assert of_teacher == {"method=kd": True, "method=supervised": False}


def test_labels_only_and_kd_with_ones_own_teacher_are_one_sweep() -> None:
    words = ["method=supervised,kd", "seed=0", "model@method.teacher=mlp", "teacher.source=/t.pt",
             "method.teacher.widths=[7]"]  # fmt: skip
    (labels, kd), rows = job_specs(expand(plain(), words), folder=".", config_dir=None)
    assert labels.overrides == ["method=supervised", "seed=0"]
    assert {"model@method.teacher=mlp", "teacher.source=/t.pt"} < {*kd.overrides}
    assert rows[1].method.teacher.widths == [7]
    with pytest.raises(UserError, match=r"model@method\.teacher=mlp has no effect: method=superv"):
        job_specs(expand(plain(), ["method=supervised", *words[1:]]), folder=".", config_dir=None)


def test_a_word_of_one_variant_must_have_an_effect_on_it() -> None:
    settings = replace(plain(), variants={"a": ["method=supervised", "teacher.seed=3"], "b": []})
    with pytest.raises(UserError, match="has no effect: method=supervised has no teacher"):
        job_specs(expand(settings, []), folder=".", config_dir=None)


def test_a_row_without_a_name_has_the_name_of_its_method() -> None:
    found, _ = job_specs(expand(plain(), ["seed=0,1", "method=kd"]), folder=".", config_dir=None)
    assert {spec.variant for spec in found} == {"kd"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.temprature=1,2"], "did you mean method.temperature"),
        (["method=kd,dkd"], "unknown method 'dkd'"),
        (["method=supervised", "teacher.seed=0,1"], "has no effect: method=supervised"),
        (["method=supervised", "teacher.seed=3", "seed=0,1"], "has no effect: method=supervised"),
        (
            [
                "teacher.source=/t.pth",
                "seed=0,1",
                "method@teacher.method=supervised,student_friendly",
            ],
            "teacher.source=/t.pth is a teacher that is already trained",
        ),
        (["seed=0,x"], "seed must be whole numbers, got x"),
        (["hardware.devices=[0],[1]"], "hardware.devices must be a number in a sweep"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_starts(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        job_specs(expand(plain(), words), folder=".", config_dir=None)


def test_unknown_keys_of_a_preset_are_refused() -> None:
    with pytest.raises(UserError, match=r"sweep.pears.*did you mean sweep.pairs"):
        settings_of(["+sweep.pears=[]"], None)


def test_the_users_own_preset_is_found(tmp_path) -> None:
    folder = tmp_path / "my conf (1), and [more]"
    (folder / "sweep").mkdir(parents=True)
    own = {"defaults": ["_base", "_self_"], "grid": {"seed": [7, 8]}}
    OmegaConf.save(OmegaConf.create(own), folder / "sweep" / "mine.yaml")
    settings, _, _ = settings_of(["sweep=mine"], str(folder))
    assert [job.axes for job in expand(settings, [])] == [{"seed": 7}, {"seed": 8}]


def test_a_plus_is_not_part_of_a_key() -> None:
    settings = Settings(grid={"+trainer.limit_train_batches": [1, 2]})
    jobs = expand(settings, [])
    assert [job.axes for job in jobs] == [
        {"trainer.limit_train_batches": 1},
        {"trainer.limit_train_batches": 2},
    ]
    assert jobs[0].overrides == ("+trainer.limit_train_batches=1",)
    (job,) = expand(settings, ["+trainer.limit_train_batches=3"])
    assert (job.axes, job.overrides) == ({}, ("+trainer.limit_train_batches=3",))


def test_settings_of_a_named_row_cannot_be_replaced() -> None:
    settings = Settings(variants={"kd": ["method.peer_weight=0"]})
    for word in ("method.peer_weight=1", "method.peer_weight=0,1"):
        with pytest.raises(UserError, match="would replace a setting of the variant 'kd'"):
            expand(settings, [word])


@pytest.mark.parametrize(
    ("title", "name"), [("a/b", "a-b"), ("x" * 300, "x" * 60), ("kd vs. dual", "kd-vs.-dual")]
)
def test_a_title_can_be_part_of_a_directorys_name(title: str, name: str) -> None:
    settings = Settings(title=title)
    assert title_of(settings, "grid", expand(settings, ["seed=0,1"])) == name


def teachers(*words: str) -> list[str]:
    """For each job, what it has in common with those that need the same teacher."""
    specs, _ = job_specs(expand(plain(), list(words)), folder=".", config_dir=None)
    return [spec.teacher for spec in specs]


def test_jobs_that_need_the_same_teacher_have_its_name_in_common() -> None:
    assert len(set(teachers("method=kd,dual_student", "seed=0,1"))) == 1
    assert len(set(teachers("method=kd", "method.temperature=1,2", "optimizer.lr=0.1"))) == 1
    first, second, *_ = found = teachers("method=kd", "seed=0,1", "teacher.seed=${seed}")
    assert len(found) == 2
    assert first != second
    mixed = teachers("method=kd", "mixing@data.mixing=mixup", "teacher.data={mixing: null}")
    assert mixed == teachers("method=kd")  # the teacher trains without mixup
    for varies in ("teacher.trainer.max_epochs=1,2", "data.name=ArrowHead,GunPoint"):
        assert len(set(teachers("method=kd", "data=ucr", varies))) == 2


@pytest.mark.parametrize("words", [["method=supervised"], ["teacher.source=untrained"]])
def test_a_job_that_trains_no_teacher_has_no_such_name(words: list[str]) -> None:
    assert teachers(*words, "seed=0,1") == ["", ""]


def test_of_a_value_and_a_list_of_one_key_the_last_counts() -> None:
    jobs = expand(plain(), ["seed=0", "method.temperature=4", "seed=1,2"])
    assert [job.axes for job in jobs] == [{"seed": 1}, {"seed": 2}]
    assert [job.overrides for job in jobs] == [("seed=1", "method.temperature=4"),
                                               ("seed=2", "method.temperature=4")]  # fmt: skip
    (job,) = expand(plain(), ["seed=1,2", "seed=0"])
    assert job.overrides == ("seed=0",)
