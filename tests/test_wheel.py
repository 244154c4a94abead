"""The wheel contains its configuration: it runs in any directory, as module and as script."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_installed_wheel_runs_in_a_clean_directory(tmp_path: Path) -> None:
    def python(*words: str, **options: object) -> str:
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, check=False, **options
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    page = [
        f"reports/page/templates/{name}"
        for name in ("page.html", "blocks.html", "style.css", "script.js")
    ]
    for file in ("conf/config.yaml", "data/class_lists/cmc.txt", "py.typed", *page):
        assert f"kd_lightning/{file}" in names
    assert not any(name.startswith(("tests/", "conf/")) for name in names)

    site, clean = tmp_path / "site", tmp_path / "clean"
    clean.mkdir()
    python(
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    )
    there = {"cwd": clean, "env": {**os.environ, "PYTHONPATH": str(site)}}
    where = python("-c", "import kd_lightning; print(kd_lightning.__file__)", **there)
    assert where.startswith(str(site))
    short = ["data=synthetic", "data.num_train=64", "data.batch_size=16", "trainer.max_epochs=1",
             "teacher.trainer.max_epochs=1", "teacher.check=warn", "callbacks=quiet"]  # fmt: skip
    script = str(site / "bin" / "kd-lightning")
    table = python(script, "run", *short, **there)
    assert "ensemble of the students" in table
    (record,) = clean.glob("outputs/2*/metrics.json")
    assert json.loads(record.read_text())["nets"].keys() == {"teacher", "a", "b", "ensemble"}
    assert "DualStudent" in python("-m", "kd_lightning.run", "--cfg", "job", *short, **there)
