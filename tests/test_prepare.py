"""python -m kd_lightning.prepare: what is written, what goes on, and what is refused."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.image_files import ImageFiles, read_rgb
from kd_lightning.data.preparation import decode, output_folder
from kd_lightning.data.prepared import Prepared
from kd_lightning.prepare import main, prepared

SMALL = ["data=image_folder", "data.image_size=6", "data.num_workers=0"]


@pytest.fixture
def tree(tmp_path, write_tree, monkeypatch) -> list[str]:
    """The overrides for a tree of 26 images, in blocks of 4."""
    monkeypatch.setattr(decode, "BLOCK", 4)
    counts = {f"{p}/{c}": n for p, n in (("train", 9), ("test", 4)) for c in ("cat", "dog")}
    root = write_tree(tmp_path / "tree", counts)
    return [*SMALL, f"data.root={root}", f"out={tmp_path / 'out'}"]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_arrays_are_of_the_stated_side_and_the_index_says_of_what(tree, tmp_path) -> None:
    out = prepared(*tree, "size=9", "data.crop_fraction=1.0")
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
        torch.from_numpy(arrays[1][0]), decode.square(read_rgb(path), 9, 6).permute(1, 2, 0)
    )


def test_the_side_is_that_of_evaluation_unless_stated(tree) -> None:
    assert np.load(prepared(*tree, "data.crop_fraction=0.6") / "test.npy").shape[1:3] == (10, 10)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_write_the_same(tree, tmp_path) -> None:
    alone = content(prepared(*tree))
    assert content(prepared(*tree, f"out={tmp_path / 'two'}", "data.num_workers=2")) == alone


def test_as_many_processes_decode_as_are_asked_for(tree, monkeypatch) -> None:
    asked = []

    def loader(*args, num_workers: int, **kwargs):
        asked.append(num_workers)
        return DataLoader(*args, **kwargs)

    monkeypatch.setattr(decode, "DataLoader", loader)
    prepared(*tree, "data.num_workers=3")
    assert asked == [3]


def test_a_data_set_of_ones_own_is_found(tree, tmp_path) -> None:
    (tmp_path / "own" / "data").mkdir(parents=True)
    own = "# Mine\ndefaults: [image_folder, _self_]\nimage_size: 14\n"
    (tmp_path / "own" / "data" / "mine.yaml").write_text(own)
    words = ["data=mine", *tree[2:]]
    with pytest.raises(UserError, match="mine"):
        prepared(*words)
    main([*words, "--config-dir", str(tmp_path / "own")])
    assert np.load(tmp_path / "out" / "test.npy").shape[1:3] == (16, 16)


class Stop(Exception):
    """What a kill is here."""


def counting(monkeypatch, *, stop_after: int | None = None) -> list[Path]:
    """The images that are decoded from now on; at most so many of them."""
    seen: list[Path] = []

    def decode(path: Path) -> torch.Tensor:
        if len(seen) == stop_after:
            raise Stop
        seen.append(path)
        return read_rgb(path)

    monkeypatch.setattr(ImageFiles, "decode", staticmethod(decode))
    return seen


@pytest.mark.parametrize("stop_after", [0, 3, 9, 25])
def test_what_was_stopped_goes_on_and_ends_the_same(
    tree, tmp_path, monkeypatch, stop_after
) -> None:
    whole = content(prepared(*tree, f"out={tmp_path / 'whole'}"))
    counting(monkeypatch, stop_after=stop_after)
    with pytest.raises(Stop):
        prepared(*tree)
    assert not (tmp_path / "out" / "index.json").exists()
    seen = counting(monkeypatch)
    assert content(prepared(*tree)) == whole
    assert len(seen) == 26 - stop_after // 4 * 4 + (2 if stop_after == 25 else 0)


def test_a_note_that_was_cut_short_is_of_no_block(tree, tmp_path, monkeypatch) -> None:
    whole = content(prepared(*tree, f"out={tmp_path / 'whole'}"))
    counting(monkeypatch, stop_after=9)
    with pytest.raises(Stop):
        prepared(*tree)
    notes = tmp_path / "out" / "done.jsonl"
    notes.write_text(notes.read_text()[:-3])
    assert len(seen := counting(monkeypatch)) == 0
    assert content(prepared(*tree)) == whole
    assert len(seen) == 22


def test_a_kill_after_the_index_leaves_nothing_to_do(tree, tmp_path, monkeypatch) -> None:
    whole = content(prepared(*tree))
    (tmp_path / "out" / "unfinished.json").write_text("{}")
    seen = counting(monkeypatch)
    assert content(prepared(*tree)) == whole
    assert not seen


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(tmp_path, write_tree) -> None:
    counts = {f"{p}/{c}": 700 for p in ("train", "test") for c in ("cat", "dog")}
    root = write_tree(tmp_path / "tree", counts)
    words = [*SMALL, f"data.root={root}", "size=64", "data.num_workers=1"]
    command = [sys.executable, "-m", "kd_lightning.prepare", *words, f"out={tmp_path / 'out'}"]
    notes = tmp_path / "out" / "done.jsonl"
    for blocks in (1, 4):
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while not (notes.exists() and len(notes.read_text().splitlines()) >= blocks):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out" / "index.json").exists()
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""
    found = content(tmp_path / "out")
    assert found == content(prepared(*words, f"out={tmp_path / 'whole'}", "data.num_workers=0"))


# Bad images


def spoil(tree: list[str], *names: str) -> None:
    root = Path(tree[3].partition("=")[2])
    for name in names:
        (path,) = root.rglob(f"{name}.JPEG") if "/" not in name else [root / f"{name}.JPEG"]
        path.write_bytes(path.read_bytes()[:-99])


def test_a_bad_image_is_named_and_nothing_is_lost(tree, monkeypatch) -> None:
    spoil(tree, "train/dog/dog_3")
    with pytest.raises(UserError, match=r"dog_3\.JPEG must be an image.*data\.on_bad_image=skip\)"):
        prepared(*tree)
    seen = counting(monkeypatch)
    prepared(*tree, "data.on_bad_image=skip")
    assert len(seen) == 26 - 12


def test_skipped_images_are_counted_named_and_left_out(tree, capsys) -> None:
    spoil(tree, "train/cat/cat_8", "train/dog/dog_0", "test/dog/dog_3")
    out = prepared(*tree, "data.on_bad_image=skip")
    said = capsys.readouterr().out
    assert "left out of train, as they cannot be decoded: 2 (cat_8.JPEG, dog_0.JPEG)" in said
    assert "left out of test, as they cannot be decoded: 1 (dog_3.JPEG)" in said
    data = Prepared(root=out, batch_size=4, image_size=6)
    parts = data.load()
    assert parts.train.y.tolist() == [0] * 8 + [1] * 8
    assert parts.test.y.tolist() == [0] * 4 + [1] * 3
    assert parts.train.x[:].flatten(1).any(1).all()


def test_what_was_skipped_is_tried_again_where_it_is_an_error(tree, monkeypatch) -> None:
    spoil(tree, "train/cat/cat_0")
    counting(monkeypatch, stop_after=9)
    with pytest.raises(Stop):
        prepared(*tree, "data.on_bad_image=skip")
    monkeypatch.setattr(ImageFiles, "decode", staticmethod(read_rgb))
    with pytest.raises(UserError, match="cat_0"):
        prepared(*tree)


# What is refused


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
        prepared(*words)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_side_below_the_nets_is_refused(tree, tmp_path) -> None:
    with pytest.raises(UserError, match=r"size must be >= data\.image_size=6, got 5"):
        prepared(*tree, "size=5")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(tree, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"must be empty, it has thesis\.tex: set out=…"):
        prepared(*tree)
    assert set(content(tmp_path / "out")) == {".lock", "thesis.tex"}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("change", ["size", "images"])
def test_a_folder_of_other_images_is_refused(
    tree, tmp_path, monkeypatch, finished: bool, change: str
) -> None:
    if finished:
        prepared(*tree)
    else:
        counting(monkeypatch, stop_after=9)
        with pytest.raises(Stop):
            prepared(*tree)
    before = content(tmp_path / "out")
    if change == "images":
        spoil(tree, "train/cat/cat_0")
    with pytest.raises(UserError, match=r"holds other images than these.*set another out=…"):
        prepared(*tree, *(["size=12"] if change == "size" else []))
    assert content(tmp_path / "out") == before


def test_without_room_nothing_is_written(tree, tmp_path, monkeypatch) -> None:
    usage = type("Usage", (), {"free": 3821})
    monkeypatch.setattr(output_folder.shutil, "disk_usage", lambda _: usage)
    needed = 26 * 3 * 7 * 7  # 3,822 bytes
    assert needed == 3822
    with pytest.raises(
        UserError, match=r"would take 3\.8 kB, and .* has 3\.8 kB left: lower size=7"
    ):
        prepared(*tree)
    assert not list((tmp_path / "out").glob("*.npy"))
    usage.free = needed
    prepared(*tree)


def test_two_at_once_are_refused(tree, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    with (
        output_folder.FileLock(tmp_path / "out" / ".lock"),
        pytest.raises(UserError, match="another process is preparing"),
    ):
        prepared(*tree)


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_folder_that_cannot_be_made_is_one_sentence(tree, tmp_path, capsys, below) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main([*tree, f"out={tmp_path}/file{below}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"Error: cannot make the folder \S+: \w.* \(out=…\)\n", said)


def test_on_the_command_line(tree, capsys) -> None:
    main(tree)
    said = capsys.readouterr().out
    assert "train 18, test 8 images of 7 x 7: 3.8 kB, in " in said
    assert "26 of 26 images" in said
    assert re.search(r"python -m kd_lightning\.run data=prepared data\.root=\S+out\n", said)
    main(tree)
    assert "is prepared already" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main([*tree, "size=5"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: size must be >= ")
