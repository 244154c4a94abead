"""The command: its options, its exit codes, and what it says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kd_lightning import predict


def test_the_command_writes_what_it_says(
    image_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "broken.jpg").touch()
    photos, out = image_run.parent / "photos" / "test", tmp_path / "p.jsonl"
    words = [str(image_run), str(photos), str(tmp_path / "broken.jpg"), "--out", str(out)]
    words += ["--student", "b", "--top-k", "1", "--workers", "0", "--device", "cpu"]
    predict.main(words)
    said = f"14 samples predicted, 1 could not be read (column error): {out}\n"
    assert capsys.readouterr().err == said
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 15
    assert list(rows[0]) == ["file", "index", "class", "probability", "error"]
    with pytest.raises(SystemExit) as stopped:
        predict.main([*words, "--strict"])
    assert stopped.value.code == 1
    predict.main([*words[:2], *words[3:], "--strict"])  # without the broken file


def test_a_mistake_is_one_sentence_with_exit_code_2(
    image_run: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        predict.main([str(image_run), "nowhere"])
    assert stopped.value.code == 2
    assert capsys.readouterr() == ("", "Error: there is no file or folder nowhere\n")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("broken.jpg", b"", "for no sample could be read (column error)"),
        ("empty.npz", None, "for no sample is in the files"),
    ],
)
def test_where_nothing_is_predicted_the_exit_code_says_so(
    name: str,
    content: bytes | None,
    reason: str,
    image_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    if content is None:
        np.savez(tmp_path / name, x=np.zeros((0, 3, 16, 16), np.uint8))
    else:
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "p.jsonl"
    with pytest.raises(SystemExit) as stopped:
        predict.main([str(image_run), str(tmp_path / name), "--out", str(out), "--device", "cpu"])
    assert stopped.value.code == 2
    assert capsys.readouterr() == ("", f"Error: nothing was predicted, {reason}: {out}\n")
    assert bool(out.read_text()) == (content is not None)


def test_a_student_that_the_run_lacks_is_named_by_its_option(
    image_run: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        predict.main([str(image_run), str(image_run.parent / "photos"), "--student", "c"])
    assert capsys.readouterr().err.endswith("greedy_soup, uniform_soup (--student …)\n")


def test_help_needs_no_torch() -> None:
    program = (
        "import sys; from kd_lightning import predict; parser = predict.build_parser(); "
        "parser.format_help(); assert not {'torch', 'timm', 'lightning'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_a_reader_of_the_rows_may_stop_early(image_run: Path) -> None:
    words = [sys.executable, "-m", "kd_lightning.predict", str(image_run)]
    words += [str(image_run.parent / "photos"), "--batch-size", "1", "--workers", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", 0)
