import base64
import hashlib
import json
import re
import shutil

import numpy as np
import pytest
import torch
from helpers import TINY
from made_runs import write_job, write_run
from made_sweeps import metrics

from kd_lightning import distill, report, reports
from kd_lightning.base.errors import UserError
from kd_lightning.config.console import console
from kd_lightning.reports.page import sections, write_page


def page_of(folder, **options):
    return write_page(reports.build([folder], **options), [folder], folder.parent / "p.html")


def headings(text):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", text)


def test_names_from_records_are_escaped(pages):
    text = pages["run"].read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert text.count("<script>") == 1  # its own
    assert "a &#34;quoted&#34; &amp; b" in text


def test_the_page_names_nothing_outside_of_itself(pages):
    for page in pages.values():
        text = page.read_text()
        assert "default-src 'none'" in text
        assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)
        assert "http" not in text.replace("http-equiv", "")


def test_only_its_own_script_may_run(pages):
    text = pages["run"].read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text.replace("&#43;", "+")


def test_the_same_records_give_the_same_bytes(run, pages, tmp_path):
    again = write_page(reports.build([run]), [run], tmp_path / "again.html")
    assert again.read_bytes() == pages["run"].read_bytes()


def test_the_header_says_what_made_the_run(pages):
    text = pages["run"].read_text()
    for words in ("<h1>kd on digits</h1>", "torch 2.15.0", "012345678901 with changes",
                  "3 files were skipped.", "2 CPU cores"):  # fmt: skip
        assert words in text


def test_a_sweep_has_means_pairs_and_the_command_of_each_job(pages):
    text = pages["sweep"].read_text()
    assert " ± " in text
    assert "method.temperature=1 − method.temperature=4" in text
    assert text.count("python -m kd_lightning.run method=kd &#39;outputs=/a b&#39;") == 8


@pytest.mark.parametrize(
    ("file", "section"),
    [
        ("epochs.csv", "Training"),
        ("calibration.json", "Reliability"),
        ("test_predictions.npz", "Confused classes"),
        ("test_examples.npz", "Examples"),
        ("environment.json", "Command"),
    ],
)
@pytest.mark.parametrize("broken", [False, True])
def test_a_section_without_its_file_is_left_out(file, section, broken, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    assert section in headings(page_of(copy).read_text())
    (copy / file).write_bytes(b"\x80 broken") if broken else (copy / file).unlink()
    left = headings(page_of(copy).read_text())
    assert section not in left
    assert len(left) >= 6


def test_the_table_of_a_report_in_a_run_is_none_of_its_nets(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "table.csv").write_text("data_set,variant,mean\n,kd on digits,0.9\n")
    assert "Results" in headings(page_of(copy).read_text())


def test_columns_that_are_asked_for_are_on_the_page_of_a_run(run):
    assert "brier" not in page_of(run).read_text()
    assert "brier" in page_of(run, columns=["test/*/brier"]).read_text()


def test_values_of_several_data_sets_name_them(tmp_path):
    written = write_run(tmp_path / "run")
    for name in ("GunPoint", "Coffee"):
        for value in (1, 4):
            write_job(tmp_path / "s", written, {"data.name": name, "T": value, "seed": 0})
    text = page_of(tmp_path / "s").read_text()
    assert "<h2>Runs in detail" in re.sub(r"<h2[^>]*>", "<h2>", text)
    assert "GunPoint, T=1, seed 0" in text.replace("data.name=GunPoint ", "")


def test_an_older_run_without_class_names_shows_numbers(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    environment = json.loads((copy / "environment.json").read_text())
    del environment["data"]["class_names"], environment["data"]["notes"]
    (copy / "environment.json").write_text(json.dumps(environment))
    text = page_of(copy).read_text()
    assert "are taken for 1" in text
    assert "owl" not in text


def test_the_records_alone_give_a_page_of_tables(sweep, tmp_path):
    reports.write(reports.build([sweep]), tmp_path / "records")
    found = headings(page_of(tmp_path / "records").read_text())
    assert found == ["Results", "Accuracy, size and speed", "Heat map of two settings",
                     "Values of each run", "Commands"]  # fmt: skip


@pytest.mark.slow
def test_a_hundred_runs_are_less_than_5_mb_and_say_what_is_left_out(tmp_path):
    names = [f"class {number}" for number in range(20)]
    images = torch.randint(0, 256, (90, 3, 64, 64), dtype=torch.uint8)
    written = write_run(tmp_path / "one", names=names, samples=images, epochs=300)
    for number in range(100):
        axes = {"method.temperature": number // 5, "seed": number % 5}
        write_job(tmp_path / "sweep", written, axes)
    page = page_of(tmp_path / "sweep")
    assert page.stat().st_size < 5e6
    text = page.read_text()
    assert f"Details are shown of {sections.MAX_DETAILED} of 100 runs" in text
    assert "A line has at most 150 points; the longest run has 300 epochs." in text
    assert text.count("data:image/png") == sections.MAX_DETAILED * sections.MAX_EXAMPLES_EACH


def test_runs_without_result_are_listed(tmp_path):
    done = write_run(tmp_path / "runs" / "1", seed=0)
    write_run(tmp_path / "runs" / "2", seed=1)
    (tmp_path / "runs" / "2" / "metrics.json").unlink()
    text = page_of(tmp_path / "runs").read_text()
    assert "1 of 2" in text
    assert "stopped" in text
    assert done.exists()


def test_a_run_of_few_records_has_a_page(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(json.dumps({"seed": 0, "title": "old"}))
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics({"a": 0.9})))
    assert headings(page_of(tmp_path / "run").read_text()) == [
        "Results",
        "Accuracy, size and speed",
    ]


def test_a_file_that_cannot_be_written_is_a_user_error_and_leaves_nothing(run, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"cannot write the page to .*name another file \(--html\)"):
        write_page(reports.build([run]), [run], tmp_path / "taken" / "p.html")
    (tmp_path / "p.html").mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        write_page(reports.build([run]), [run], tmp_path / "p.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.html", "taken"]


@pytest.mark.slow
def test_a_real_run_has_every_section(tmp_path, store, capsys):
    done = distill(*TINY, f"outputs={tmp_path}", f"teacher.store={store}", "threads=1")
    console.width = 200
    report.main([str(done.directory), "--html", str(tmp_path / "sub" / "page.html")])
    assert f"Page: {tmp_path}/sub/page.html" in capsys.readouterr().out
    text = (tmp_path / "sub" / "page.html").read_text()
    assert headings(text)[:5] == ["Results", "Accuracy, size and speed", "Training",
                                  "Reliability", "Confidence"]  # fmt: skip
    assert done.metrics["nets"]["a"]["title"] in text
    with np.load(done.directory / "test_examples.npz") as file:
        assert text.count('<article class="example">') == len(file["index"])
