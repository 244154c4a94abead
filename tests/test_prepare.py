"""python -m kd_lightning.prepare: what it writes, how it resumes, and what it refuses."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from forked_runs import command_line, start_run
from torch.utils.data import DataLoader

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.decoding import read_rgb
from kd_lightning.data.loading.image_files import ImageFiles
from kd_lightning.data.loading.resizing import Resizing
from kd_lightning.data.preparation import decode, output_folder
from kd_lightning.data.prepared import UNFINISHED_FILE, Prepared
from kd_lightning.prepare import main, prepare

SMALL = ["data=image_folder", "data.image_size=6", "data.num_workers=0"]


@pytest.fixture
def tree(tmp_path, write_tree, monkeypatch) -> list[str]:
    """The overrides for an image tree of 26 images, in blocks of 4."""
    monkeypatch.setattr(decode, "BLOCK_SIZE", 4)
    counts = {f"{p}/{c}": n for p, n in (("train", 9), ("test", 4)) for c in ("cat", "dog")}
    root = write_tree(tmp_path / "tree", counts)
    return [*SMALL, f"data.root={root}", f"out={tmp_path / 'out'}"]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_arrays_have_the_set_size_and_the_index_describes_them(tree, tmp_path) -> None:
    out = prepare(*tree, "size=9", "data.crop_fraction=1.0")
    assert out == tmp_path / "out"
    assert set(content(out)) == {".lock", "index.json", "train.npy", "test.npy"}
    arrays = [np.load(out / f"{part}.npy") for part in ("train", "test")]
    assert [array.shape for array in arrays] == [(18, 9, 9, 3), (8, 9, 9, 3)]
    assert all(array.any(axis=(1, 2, 3)).all() for array in arrays)
    index = json.loads((out / "index.json").read_text())
    assert index["parts"]["test"]["labels"] == [0] * 4 + [1] * 4
    assert (index["size"], index["class_names"]) == (9, ["cat", "dog"])
    path = tmp_path / "tree" / "test" / "cat" / "cat_0.JPEG"
    assert torch.equal(
        torch.from_numpy(arrays[1][0]),
        decode.central_square(read_rgb(path), 9, Resizing(6, "crop", 1.0)).permute(1, 2, 0),
    )


def test_the_size_is_that_of_evaluation_unless_set(tree) -> None:
    assert np.load(prepare(*tree, "data.crop_fraction=0.6") / "test.npy").shape[1:3] == (10, 10)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_number_of_workers_does_not_change_the_files(tree, tmp_path) -> None:
    alone = content(prepare(*tree))
    assert content(prepare(*tree, f"out={tmp_path / 'two'}", "data.num_workers=2")) == alone


def test_num_workers_processes_decode(tree, monkeypatch) -> None:
    counts = []

    def loader(*args, num_workers: int, **kwargs):
        counts.append(num_workers)
        return DataLoader(*args, **kwargs)

    monkeypatch.setattr(decode, "DataLoader", loader)
    prepare(*tree, "data.num_workers=3")
    assert counts == [3]


def test_a_users_own_data_set_is_found(tree, tmp_path) -> None:
    (tmp_path / "own" / "data").mkdir(parents=True)
    own = "# Mine\ndefaults: [image_folder, _self_]\nimage_size: 14\n"
    (tmp_path / "own" / "data" / "mine.yaml").write_text(own)
    words = ["data=mine", *tree[2:]]
    with pytest.raises(UserError, match="mine"):
        prepare(*words)
    main([*words, "--config-dir", str(tmp_path / "own")])
    assert np.load(tmp_path / "out" / "test.npy").shape[1:3] == (16, 16)


class Stop(Exception):
    """Stands for a kill of the process."""


def counting(monkeypatch, *, stop_after: int | None = None) -> list[Path]:
    """Records the images that are decoded from now on, and raises Stop after ``stop_after``."""
    seen: list[Path] = []

    def decode(path: Path) -> torch.Tensor:
        if len(seen) == stop_after:
            raise Stop
        seen.append(path)
        return read_rgb(path)

    monkeypatch.setattr(ImageFiles, "decode", staticmethod(decode))
    return seen


@pytest.mark.parametrize("stop_after", [0, 3, 9, 25])
def test_an_interrupted_preparation_resumes_to_the_same_files(
    tree, tmp_path, monkeypatch, stop_after
) -> None:
    whole = content(prepare(*tree, f"out={tmp_path / 'whole'}"))
    counting(monkeypatch, stop_after=stop_after)
    with pytest.raises(Stop):
        prepare(*tree)
    assert not (tmp_path / "out" / "index.json").exists()
    seen = counting(monkeypatch)
    assert content(prepare(*tree)) == whole
    assert len(seen) == 26 - stop_after // 4 * 4 + (2 if stop_after == 25 else 0)


def test_a_truncated_record_of_a_block_is_ignored(tree, tmp_path, monkeypatch) -> None:
    whole = content(prepare(*tree, f"out={tmp_path / 'whole'}"))
    counting(monkeypatch, stop_after=9)
    with pytest.raises(Stop):
        prepare(*tree)
    record = tmp_path / "out" / "done.jsonl"
    record.write_text(record.read_text()[:-3])
    assert len(seen := counting(monkeypatch)) == 0
    assert content(prepare(*tree)) == whole
    assert len(seen) == 22


def test_after_a_kill_behind_the_index_nothing_is_decoded_again(
    tree, tmp_path, monkeypatch
) -> None:
    whole = content(prepare(*tree))
    (tmp_path / "out" / "unfinished.json").write_text("{}")
    seen = counting(monkeypatch)
    assert content(prepare(*tree)) == whole
    assert not seen


def test_a_kill_while_the_first_file_is_written_does_not_stop_the_next(tree, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{UNFINISHED_FILE}.tmp").write_text('{"data": "Ima')
    prepare(*tree)
    assert not list((tmp_path / "out").glob("*.tmp"))


@pytest.mark.slow
def test_a_killed_preparation_resumes(tmp_path, write_tree) -> None:
    counts = {f"{p}/{c}": 700 for p in ("train", "test") for c in ("cat", "dog")}
    root = write_tree(tmp_path / "tree", counts)
    words = [*SMALL, f"data.root={root}", "size=64", "data.num_workers=1"]
    more = [*words, f"out={tmp_path / 'out'}"]
    record = tmp_path / "out" / "done.jsonl"
    for blocks in (1, 4):
        process = start_run(tmp_path / "log.txt", *more, program="kd_lightning.prepare")
        end = time.monotonic() + 120
        while not (record.exists() and len(record.read_text().splitlines()) >= blocks):
            assert process.is_alive()
            assert time.monotonic() < end
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        assert not (tmp_path / "out" / "index.json").exists()
    done = command_line(tmp_path, *more, program="kd_lightning.prepare")
    assert (done.returncode, done.stderr) == (0, "")
    found = content(tmp_path / "out")
    assert found == content(prepare(*words, f"out={tmp_path / 'whole'}", "data.num_workers=0"))


def test_leaks_and_what_was_passed_over_are_said(tree, tmp_path, capsys) -> None:
    folder = tmp_path / "tree" / "test" / "cat"
    shutil.copy(tmp_path / "tree" / "train" / "cat" / "cat_0.JPEG", folder / "copy.jpg")
    (folder / "notes.txt").touch()
    prepare(*tree)
    output = capsys.readouterr().out
    assert "Passed over in test: 1 .txt (read are " in output
    assert "1 of 9 test samples are in train or val too" in output
    (folder / "more.txt").touch()  # changes no image
    prepare(*tree)
    assert "is already prepared" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"1 of 9 test samples .*data\.on_leak=warn"):
        prepare(*tree, "data.on_leak=error", f"out={tmp_path / 'other'}")
    assert not (tmp_path / "other").exists()


def test_a_finished_folder_of_an_earlier_version_is_recognised(tree, tmp_path, capsys) -> None:
    out = prepare(*tree, "data.exif=false")
    index = json.loads((out / "index.json").read_text())
    for key in ("resize", "interpolation", "exif", "notes"):
        del index[key]
    (out / "index.json").write_text(json.dumps(index))
    prepare(*tree, "data.exif=false")
    assert "is already prepared" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"its exif differs: False, now True"):
        prepare(*tree)


# Bad images


def spoil(tree: list[str], *names: str) -> None:
    root = Path(tree[3].partition("=")[2])
    for name in names:
        (path,) = root.rglob(f"{name}.JPEG") if "/" not in name else [root / f"{name}.JPEG"]
        path.write_bytes(path.read_bytes()[:-99])


def test_a_bad_image_is_named_and_finished_blocks_are_kept(tree, monkeypatch) -> None:
    spoil(tree, "train/dog/dog_3")
    with pytest.raises(UserError, match=r"dog_3\.JPEG must be an image.*data\.on_bad_image=skip\)"):
        prepare(*tree)
    seen = counting(monkeypatch)
    prepare(*tree, "data.on_bad_image=skip")
    assert len(seen) == 26 - 12


def test_skipped_images_are_reported_and_left_out(tree, capsys) -> None:
    spoil(tree, "train/cat/cat_8", "train/dog/dog_0", "test/dog/dog_3")
    out = prepare(*tree, "data.on_bad_image=skip")
    output = capsys.readouterr().out
    assert "left out of train, as they cannot be decoded: 2 (cat_8.JPEG, dog_0.JPEG)" in output
    assert "left out of test, as they cannot be decoded: 1 (dog_3.JPEG)" in output
    data = Prepared(root=out, batch_size=4, image_size=6)
    parts = data.load()
    assert parts.train.y.tolist() == [0] * 8 + [1] * 8
    assert parts.test.y.tolist() == [0] * 4 + [1] * 3
    assert parts.train.x[:].flatten(1).any(1).all()


def test_skipped_images_are_decoded_again_with_on_bad_image_error(tree, monkeypatch) -> None:
    spoil(tree, "train/cat/cat_0")
    counting(monkeypatch, stop_after=9)
    with pytest.raises(Stop):
        prepare(*tree, "data.on_bad_image=skip")
    monkeypatch.setattr(ImageFiles, "decode", staticmethod(read_rgb))
    with pytest.raises(UserError, match="cat_0"):
        prepare(*tree)


# Refused requests


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=digits", "out=x"], "Digits has no image files to decode: prepare is for data="),
        (["data=image_folder", "data.root=."], r"say where the prepared images go \(out=…\)"),
        (["data=image_folder", "out=x"], r"say where a folder of images is \(data\.root=…\)"),
        (["data=image_folder", "out=x", "size=large"], "size must be a whole number or null"),
        (["data=image_folder", "out=x", "data.image_siz=3"], r"data\.image_siz"),
        (["data=image_foldr", "out=x"], "image_folder"),
        (["data=image_folder", "out=x", "data.label_noise=0.1"], r"data\.label_noise is for runs"),
        (["data=image_folder", "out=x", "data.train_per_class=3"], r"train_per_class is for runs"),
        (["data=image_folder", "out=x", "mixing@data.mixing=mixup"], r"data\.mixing is for runs"),
        (["data=image_folder", "out=x", "side=3"], "side"),
        (["data=image_folder", "out=x", "format=zip"], r"unknown format 'zip': .*arrays, litdata"),
        (["data=image_folder", "out=x", "format=litdata", "size=9"], "size=9 has no effect with"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_that_names_the_key(
    words, message, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as refused:
        prepare(*words)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_size_below_image_size_is_refused(tree, tmp_path) -> None:
    with pytest.raises(UserError, match=r"size must be >= data\.image_size=6, got 5"):
        prepare(*tree, "size=5")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_not_changed(tree, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"must be empty, it has thesis\.tex: set out=…"):
        prepare(*tree)
    assert set(content(tmp_path / "out")) == {".lock", "thesis.tex"}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("change", ["size", "images"])
def test_a_folder_of_other_images_or_settings_is_refused(
    tree, tmp_path, monkeypatch, finished: bool, change: str
) -> None:
    if finished:
        prepare(*tree)
    else:
        counting(monkeypatch, stop_after=9)
        with pytest.raises(Stop):
            prepare(*tree)
    before = content(tmp_path / "out")
    if change == "images":
        spoil(tree, "train/cat/cat_0")
    with pytest.raises(
        UserError, match=r"was prepared from other images or with other settings.*set another out=…"
    ):
        prepare(*tree, *(["size=12"] if change == "size" else []))
    assert content(tmp_path / "out") == before


def test_with_a_full_disk_nothing_is_written(tree, tmp_path, monkeypatch) -> None:
    usage = type("Usage", (), {"free": 3821})
    monkeypatch.setattr(output_folder.shutil, "disk_usage", lambda _: usage)
    needed = 26 * 3 * 7 * 7  # 3,822 bytes
    assert needed == 3822
    with pytest.raises(
        UserError, match=r"need 3\.8 kB, but the disk of .* has 3\.8 kB left: lower size=7"
    ):
        prepare(*tree)
    assert not list((tmp_path / "out").glob("*.npy"))
    usage.free = needed
    prepare(*tree)


def test_a_folder_in_use_by_another_process_is_refused(tree, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    with (
        output_folder.FileLock(tmp_path / "out" / ".lock"),
        pytest.raises(UserError, match="another process is preparing"),
    ):
        prepare(*tree)


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_folder_that_cannot_be_created_is_refused_with_one_sentence(
    tree, tmp_path, capsys, below
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main([*tree, f"out={tmp_path}/file{below}"])
    assert ended.value.code == 2
    output = capsys.readouterr().err
    assert re.fullmatch(r"Error: cannot make the folder \S+: \w.* \(out=…\)\n", output)


def test_the_command_line_reports_progress_and_errors(tree, capsys) -> None:
    main(tree)
    output = capsys.readouterr().out
    assert "train 18, test 8 images of 7 x 7: 3.8 kB, in " in output
    assert "26 of 26 images" in output
    assert re.search(r"python -m kd_lightning\.run data=prepared data\.root=\S+out\n", output)
    main(tree)
    assert "is already prepared" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main([*tree, "size=5"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: size must be >= ")
