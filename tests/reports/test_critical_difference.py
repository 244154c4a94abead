import pytest
from made_sweeps import job, metrics

from kd_lightning import reports


def test_the_diagram_shows_every_row_with_its_rank_and_is_written(tmp_path):
    pytest.importorskip("scikit_posthocs")
    from kd_lightning.reports import critical_difference

    for d in range(6):
        for i, name in enumerate(["labels only", "kd", "dual"]):
            axes = {"variant": name, "data.name": f"set{d}", "seed": 0}
            job(tmp_path, name, axes, metrics({"a": 0.5 + 0.1 * i + 0.01 * d}))
    report = reports.build([tmp_path])
    (comparison,) = report.comparisons
    texts = [text.get_text() for text in critical_difference.draw(comparison).axes[0].texts]
    assert {"dual  (1.00)", "(3.00)  labels only"} <= set(texts)
    assert any("kd" in text and "(2.00)" in text for text in texts)
    reports.write(report, tmp_path)
    assert (tmp_path / "critical_difference-a.png").read_bytes().startswith(b"\x89PNG")
    assert "critical_difference-a.png" in (tmp_path / "table.md").read_text()
