import pytest
from made_sweeps import job, metrics, rows_over_seeds, settings
from scipy import stats

from kd_lightning import reports
from kd_lightning.base.errors import UserError
from kd_lightning.reports.formats import format_p
from kd_lightning.reports.statistics import Sample, holm

A, B, C = [0.90, 0.93, 0.95, 0.91], [0.88, 0.92, 0.91, 0.90], [0.70, 0.71, 0.74, 0.70]


def pairs_of(folder, *pairs, **options):
    report = reports.build([folder], pairs=pairs, **options)
    (table,) = [table for table in report.tables if table.name == "pairs"]
    return report.differences, table


def test_the_difference_is_paired_by_seed(tmp_path):
    rows_over_seeds(tmp_path, {"kd": A, "labels": B})
    (difference,), table = pairs_of(tmp_path, ("kd", "labels"))
    expected = stats.ttest_rel(A, B)
    low, high = expected.confidence_interval(0.95)
    assert difference.sample.mean == pytest.approx(0.02)
    assert difference.sample.p_value() == pytest.approx(expected.pvalue)
    assert difference.sample.interval() == pytest.approx((low, high))
    interval = f"{100 * low:+.2f} to {100 * high:+.2f}".replace("-", "−")
    assert table.rows == [["kd − labels", "a", "4", "+2.00", interval, f"{expected.pvalue:.3f}"]]
    assert "Holm" not in " ".join([*table.heads, *table.notes])


def test_only_seeds_that_both_rows_have_are_compared_and_a_note_says_so(tmp_path):
    rows_over_seeds(tmp_path, {"kd": [0.9, "Boom", 0.8, 0.7], "labels": [0.8, 0.8, None, 0.5]})
    (difference,), table = pairs_of(tmp_path, ("kd", "labels"))
    assert difference.sample.values == pytest.approx((0.1, 0.2))
    assert table.rows[0][2] == "2 of 4"
    assert "n of m: only the n seeds for which both rows have a result are compared." in table.notes


def test_several_pairs_have_p_with_holms_correction(tmp_path):
    rows_over_seeds(tmp_path, {"a": A, "b": B, "c": C})
    found, table = pairs_of(tmp_path, ("a", "b"), ("a", "c"), ("b", "c"))
    adjusted = holm([stats.ttest_rel(*two).pvalue for two in ((A, B), (A, C), (B, C))])
    assert [row[-1] for row in table.rows] == [format_p(p) for p in adjusted]
    assert [d.pair.title for d in found] == ["a − b", "a − c", "b − c"]
    assert table.heads[-1] == "p, Holm"
    assert (
        "p, Holm: with Holm's correction for the tests of the same net (3 at most)." in table.notes
    )


def test_every_student_and_the_ensemble_are_compared_on_test(tmp_path):
    for seed in (0, 1):
        for name, shift in (("x", 0.05 * seed), ("y", 0.0)):
            nets = {"a": 0.8 + shift, "b": 0.7 + 2 * shift, "ensemble": 0.85 + 3 * shift}
            job(tmp_path, name, {"seed": seed}, metrics(nets))
    _, table = pairs_of(tmp_path, ("x", "y"))
    assert [(row[1], row[3]) for row in table.rows] == [
        ("a", "+2.50"), ("b", "+5.00"), ("ensemble", "+7.50"),
    ]  # fmt: skip
    _, table = pairs_of(tmp_path, ("x", "y"), columns=["val/accuracy", "test/b/accuracy"])
    assert [row[1] for row in table.rows] == ["b"]
    _, table = pairs_of(tmp_path, ("x", "y"), columns=["test/a/ece"])
    assert [row[1] for row in table.rows] == ["a", "b", "ensemble"]


def test_one_seed_gives_a_difference_and_no_test(tmp_path):
    rows_over_seeds(tmp_path, {"kd": [0.9], "labels": [0.8]})
    _, table = pairs_of(tmp_path, ("kd", "labels"))
    assert table.rows == [["kd − labels", "a", "1", "+10.00", "", ""]]
    assert "With fewer than two seeds (n < 2) there is no interval and no test." in table.notes


def test_equal_differences_have_no_p_and_a_note_says_so(tmp_path):
    rows_over_seeds(tmp_path, {"kd": [0.75, 0.5], "labels": [0.5, 0.25]})
    _, table = pairs_of(tmp_path, ("kd", "labels"))
    assert table.rows == [["kd − labels", "a", "2", "+25.00", "+25.00 to +25.00", ""]]
    assert any("the difference is the same for all seeds" in note for note in table.notes)
    assert "nan" not in str(table)


def test_a_difference_has_a_sign_and_zero_has_none(tmp_path):
    rows_over_seeds(tmp_path, {"kd": [0.5, 0.25], "labels": [0.75, 0.5], "same": [0.75, 0.5]})
    _, table = pairs_of(tmp_path, ("kd", "labels"), ("same", "labels"))
    assert [row[3] for row in table.rows] == ["−25.00", "0.00"]


def test_rows_without_a_net_in_common_are_named(tmp_path):
    job(tmp_path, "kd", {"seed": 0}, metrics({"student": 0.9}))
    job(tmp_path, "dual", {"seed": 0}, metrics({"a": 0.8}))
    found, table = pairs_of(tmp_path, ("kd", "dual"))
    assert not found
    assert "Not compared, because the rows have no net in common: kd − dual." in table.notes


@pytest.mark.parametrize(
    ("varies", "expected"),
    [
        ((), "All seeds use the same teacher and the same split, so the intervals do not cover the "
         "variation between teachers and splits."),
        (("teacher",), "All seeds use the same split, so the intervals do not cover the variation "
         "between splits. The seeds differ in teacher too, so the intervals also cover the "
         "variation between teachers."),
        (("teacher", "split"), "seeds. The seeds differ in teacher and split too, so the intervals "
         "also cover the variation between teachers and splits."),
        (("no teacher",), "seeds. All seeds use the same split, so the intervals do not cover the "
         "variation between splits."),
    ],
)  # fmt: skip
def test_a_note_says_what_the_interval_covers(tmp_path, varies, expected):
    for seed in (0, 1):
        for name in ("x", "y"):
            own = seed if "teacher" in varies else 0
            teacher = None if "no teacher" in varies else 0.9
            outcome = metrics(
                {"a": 0.8 + 0.01 * seed}, teacher=teacher, origin=f"trained, x/teacher-{own}"
            )
            split = seed if "split" in varies else 0
            job(tmp_path, name, {"seed": seed}, outcome, split=split, teacher_seed=own)
    _, table = pairs_of(tmp_path, ("x", "y"))
    (note,) = [note for note in table.notes if note.startswith("The intervals")]
    assert note.endswith(expected)


@pytest.mark.parametrize("differ", [True, False])
def test_seeds_with_resamples_of_their_own_are_corrected_for_their_overlap(tmp_path, differ):
    for seed, (x, y) in enumerate(zip(A, B, strict=True)):
        for name, accuracy in (("x", x), ("y", y)):
            outcome = metrics({"a": accuracy}) | {"protocol": "of it (30 / 10 / 120 samples)"}
            resample = seed if differ else 3
            job(tmp_path, name, {"seed": seed}, outcome, resample=resample)
    (difference,), table = pairs_of(tmp_path, ("x", "y"))
    of_independent = Sample(difference.sample.values)
    assert difference.sample.overlap == (3 if differ else 0)
    ratio = difference.sample.error / of_independent.error
    assert ratio == pytest.approx((1 + 4 * 3) ** 0.5 if differ else 1)
    assert any("Nadeau and Bengio" in note for note in table.notes) == differ
    assert any("same split" in note for note in table.notes) != differ


def test_pairs_of_the_sweep_and_of_the_command_line_are_both_tested(tmp_path):
    rows_over_seeds(tmp_path, {"a": A, "b": B, "c": C})
    settings(tmp_path, pairs=[["a", "b"]])
    found, _ = pairs_of(tmp_path, ("a", "c"))
    assert [difference.pair.title for difference in found] == ["a − b", "a − c"]


def test_a_margin_adds_the_test_that_the_rows_are_equal_within_it(tmp_path):
    rows_over_seeds(tmp_path, {"kd": A, "labels": B, "other": C})
    settings(tmp_path, margin=4)
    (near, far), table = pairs_of(tmp_path, ("kd", "labels"), ("kd", "other"))
    a_minus_b = [a - b for a, b in zip(A, B, strict=True)]
    above = stats.ttest_1samp(a_minus_b, -0.04, alternative="greater").pvalue
    below = stats.ttest_1samp(a_minus_b, 0.04, alternative="less").pvalue
    assert near.sample.equivalence_p_value(0.04) == pytest.approx(max(above, below))
    assert far.sample.equivalence_p_value(0.04) > 0.99
    assert table.heads[-1] == "p, within ±4"
    assert table.rows[0][-1] == format_p(2 * max(above, below))  # Holm
    assert any("smaller than 4 points either way" in note for note in table.notes)
    _, stricter = pairs_of(tmp_path, ("kd", "labels"), margin=0.1)
    assert stricter.heads[-1] == "p, within ±0.1"
    assert float(stricter.rows[0][-1]) > 0.9


@pytest.mark.parametrize("margin", [0, -1, 101])
def test_a_margin_is_in_points(tmp_path, margin):
    rows_over_seeds(tmp_path, {"kd": A, "labels": B})
    with pytest.raises(UserError, match=r"in \(0, 100\], got"):
        reports.build([tmp_path], margin=margin)
