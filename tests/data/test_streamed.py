"""Packed images equal the image tree bit for bit, from a folder and from remote storage."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from forked_runs import start_run
from helpers import compose
from PIL import Image

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading import packed_files
from kd_lightning.data.loading.batches import BadImage
from kd_lightning.data.preparation import pack as packing
from kd_lightning.data.streamed import SCHEMES, Streamed
from kd_lightning.prepare import prepare
from kd_lightning.running.build import build_data

pytest.importorskip("litdata")
from litdata.streaming import Cache, downloader

SMALL = ["data.batch_size=4", "data.num_workers=0", "data.image_size=6"]
COUNTS = {f"{p}/{c}": n for p, n in (("train", 12), ("test", 5)) for c in ("cat", "dog")}


@pytest.fixture
def tree(tmp_path, write_tree) -> list[str]:
    """The overrides that pack an image tree of 34 images into tmp_path / "out"."""
    root = write_tree(tmp_path / "tree", COUNTS)
    return ["data=image_folder", f"data.root={root}", f"out={tmp_path / 'out'}", "format=litdata"]


@pytest.fixture
def out(tree) -> Path:
    return prepare(*tree, "data.val_fraction=0.25")


@pytest.fixture
def both(build, out, tmp_path):
    """both(overrides): the data set of the image tree and the packed one, set up."""

    def make(*overrides, root=out):
        words = [*SMALL, *overrides]
        modules = [
            build(
                "image_folder", f"data.root={tmp_path / 'tree'}", "data.val_fraction=0.25", *words
            ),
            build("streamed", f"data.root={root}", *words),
        ]
        for module in modules:
            module.setup()
        return modules

    return make


def epochs(data, part, count=2):
    loader = data.loader(part)
    found = []
    for epoch in range(count):
        loader.batch_sampler.sampler.set_epoch(epoch)
        found += list(loader)
    return found


def assert_same_batches(one, other):
    for part in ("train", "val", "test"):
        for (x, y), (x2, y2) in zip(epochs(one, part), epochs(other, part), strict=True):
            assert torch.equal(x, x2)
            assert torch.equal(y, y2)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_and_fingerprint_equal_those_of_the_tree(both, num_workers) -> None:
    tree, found = both(f"data.num_workers={num_workers}")
    assert (found.fingerprint, found.protocol) == (tree.fingerprint, tree.protocol)
    assert len(found.parts["val"]) == 6
    assert_same_batches(tree, found)


@pytest.mark.parametrize("exif", [True, False])
def test_a_run_records_whether_images_were_turned(tree, exif, tmp_path) -> None:
    """Its name and size are all that the fingerprint knows of a file."""
    packed = prepare(*tree[:-2], f"out={tmp_path / 'again'}", tree[-1], f"data.exif={exif}")
    cfg = compose("method=supervised", "data=streamed", f"data.root={packed}", *SMALL)
    build_data(cfg)
    assert cfg.data.exif is exif


@pytest.mark.parametrize("exif", [True, False])
def test_images_are_turned_as_in_preparation(tree, build, tmp_path, exif) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    path = tmp_path / "tree" / "test" / "cat" / "cat_0.JPEG"
    Image.new("RGB", (8, 4), "red").save(path, exif=tags)
    out = prepare(*tree, f"data.exif={exif}")
    found = build("streamed", f"data.root={out}", *SMALL)
    found.setup()
    assert found.exif == exif
    assert found.decode(found.parts["test"].x[0]).shape == ((3, 8, 4) if exif else (3, 4, 8))
    with pytest.raises(UserError, match=rf"with exif={str(exif).lower()}, got data\.exif="):
        build("streamed", f"data.root={out}", *SMALL, f"data.exif={not exif}").setup()


def test_a_folder_of_an_earlier_version_is_not_turned(build, out) -> None:
    facts = json.loads((out / "stream.json").read_text())
    del facts["exif"], facts["notes"]
    (out / "stream.json").write_text(json.dumps(facts))
    data = build("streamed", f"data.root={out}", *SMALL)
    data.setup()
    assert data.exif is False


def test_another_val_fraction_may_be_set(both) -> None:
    _, found = both("data.val_fraction=0.5")
    assert len(found.parts["val"]) == 12


@pytest.mark.parametrize("split_seed", [0, 5])
def test_a_tree_with_only_train_is_split_in_the_same_way(
    build, write_tree, tmp_path, split_seed
) -> None:
    root, out = write_tree(tmp_path / "tree", {"train/cat": 20, "train/dog": 20}), tmp_path / "out"
    of_tree = [f"data.root={root}", f"data.split_seed={split_seed}"]
    prepare("data=image_folder", *of_tree, f"out={out}", "format=litdata")
    tree = build("image_folder", *of_tree, *SMALL)
    found = build("streamed", f"data.root={out}", *SMALL)
    for data in (tree, found):
        data.setup()
    assert found.fingerprint == tree.fingerprint
    assert (found.protocol, found.split_seed) == (tree.protocol, split_seed)
    assert_same_batches(tree, found)
    with pytest.raises(UserError, match=r"split off from train with split_seed=.*: remove it"):
        build("streamed", f"data.root={out}", *SMALL, "data.split_seed=3").setup()


def test_another_split_seed_is_allowed_if_there_is_a_test_folder(both) -> None:
    tree, found = both("data.split_seed=5")
    assert "(split_seed 5)" in found.protocol
    assert found.fingerprint == tree.fingerprint


def test_the_size_of_chunks_does_not_change_batches(tree, both, monkeypatch) -> None:
    monkeypatch.setattr(packing, "CHUNK", 3000)
    shutil.rmtree(tree[2].partition("=")[2])
    out = prepare(*tree, "data.val_fraction=0.25")
    assert len(list((out / "train").glob("chunk*"))) > 3
    assert_same_batches(*both())


class RemoteStorage(downloader.Downloader):
    """A remote storage that counts the requests for files and for ranges of bytes."""

    root: Path
    ranges = 0
    files: list[str]

    def local_path(self, address: str) -> Path:
        return self.root / address.removeprefix("s3://bucket/")

    def download_file(self, remote_filepath: str, local_filepath: str) -> None:
        self.files.append(Path(remote_filepath).name)
        shutil.copy(self.local_path(remote_filepath), local_filepath)

    def download_bytes(
        self, remote_filepath: str, offset: int, length: int, local_chunkpath: str
    ) -> bytes:
        type(self).ranges += 1
        return self.local_path(remote_filepath).read_bytes()[offset : offset + length]


@pytest.fixture
def remote_root(tmp_path, monkeypatch, out):
    monkeypatch.setitem(downloader._DOWNLOADERS, "s3://", RemoteStorage)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where litdata stores indexes
    monkeypatch.setattr(RemoteStorage, "root", tmp_path, raising=False)
    monkeypatch.setattr(RemoteStorage, "files", [], raising=False)
    monkeypatch.setattr(RemoteStorage, "ranges", 0)
    packed_files.open_reader.cache_clear()
    return "s3://bucket/out"


def test_remote_images_are_read_one_by_one_and_no_chunk_is_stored(both, remote_root) -> None:
    tree, found = both(root=remote_root)
    assert found.fingerprint == tree.fingerprint
    assert_same_batches(tree, found)
    assert RemoteStorage.ranges >= 2 * (16 + 6 + 10)
    assert not [name for name in RemoteStorage.files if name.endswith(".bin")]


def test_an_unreadable_address_is_named(build, remote_root) -> None:
    data = build("streamed", f"data.root={remote_root}s", *SMALL)
    with pytest.raises(
        UserError, match=r"with stream\.json at s3://bucket/outs: .*\(data\.root=…\)"
    ):
        data.setup()


RANK = """
import json, sys
import torch
from kd_lightning.data.streamed import Streamed
rank, root, store, out = int(sys.argv[1]), *sys.argv[2:]
torch.distributed.init_process_group("gloo", f"file://{store}", world_size=2, rank=rank)
data = Streamed(root=root, batch_size=4, image_size=6, seed=0, num_workers=0)
data.setup()
seen = {}
for part in ("train", "val", "test"):
    batches = list(data.loader(part, rank=rank, ranks=2))
    seen[part] = [[x.tolist(), y.tolist()] for x, y in batches]
torch.distributed.barrier()
json.dump(seen, open(out, "w"))
"""


@pytest.mark.slow
def test_two_ranks_share_the_batches_of_one_rank(build, out, tmp_path) -> None:
    found = [tmp_path / f"{rank}.json" for rank in range(2)]
    (tmp_path / "rank.py").write_text(RANK)
    logs = [tmp_path / f"{rank}.log" for rank in range(2)]
    words = [(str(rank), str(out), str(tmp_path / "store"), str(found[rank])) for rank in range(2)]
    program = str(tmp_path / "rank.py")
    ranks = [start_run(log, *each, program=program) for log, each in zip(logs, words, strict=True)]
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0, 0], [log.read_text() for log in logs]
    shares = [json.loads(path.read_text()) for path in found]
    data = build("streamed", f"data.root={out}", *SMALL, "data.augmentation=null")
    data.setup()
    for part in ("train", "val", "test"):
        one = [[x.tolist(), y.tolist()] for x, y in data.loader(part)]
        images = [[str(x) for batch, _ in share[part] for x in batch] for share in shares]
        whole = [str(x) for batch, _ in one for x in batch]
        assert not set(images[0]) & set(images[1])
        assert sorted(images[0] + images[1]) == sorted(whole)
        if part == "train":  # each global batch is divided over the ranks
            assert whole == [x for pair in zip(*images, strict=True) for x in pair]


def test_a_bad_image_stops_the_run_or_is_skipped(tree, build, tmp_path) -> None:
    path = tmp_path / "tree" / "test" / "cat" / "cat_1.JPEG"
    path.write_bytes(b"no image")
    out = prepare(*tree)
    data = build("streamed", f"data.root={out}", *SMALL)
    data.setup()
    with pytest.raises(
        BadImage, match=r"cat/cat_1\.JPEG must be an image: cannot identify image file"
    ):
        list(data.loader("test"))
    data.skip_bad = True
    with pytest.warns(UserWarning, match=r"left out: cat/cat_1\.JPEG"):
        assert sum(len(y) for _, y in data.loader("test")) == 9


def test_packed_data_cannot_be_packed_again(out, tmp_path) -> None:
    words = ["data=streamed", f"data.root={out}", f"out={tmp_path / 'again'}"]
    with pytest.raises(UserError, match=r"^data=streamed is already packed: .* \(data=…\)$"):
        prepare(*words, "format=litdata")
    assert not (tmp_path / "again").exists()


def test_a_resumed_preparation_packs_only_missing_parts(tree, tmp_path, monkeypatch) -> None:
    whole = prepare(*tree, f"out={tmp_path / 'whole'}")
    pack, done = packing.pack, []

    def stopping(files, folder, say):
        done.append(folder.name)
        if len(done) == 2:
            raise KeyboardInterrupt
        pack(files, folder, say)

    monkeypatch.setattr(packing, "pack", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare(*tree)
    assert not (tmp_path / "out" / "stream.json").exists()
    found = prepare(*tree)
    assert done == ["train", "test", "test"]
    for name in ("stream.json", "train/chunk-0-0.bin", "test/chunk-0-0.bin"):
        assert (found / name).read_bytes() == (whole / name).read_bytes()
    prepare(*tree)
    assert len(done) == 3


@pytest.mark.parametrize("damage", ["gone", "format", "other"])
def test_a_folder_that_does_not_match_its_index_is_refused(out, build, damage) -> None:
    facts = json.loads((out / "stream.json").read_text())
    if damage == "gone":
        shutil.rmtree(out / "test")
    elif damage == "format":
        (out / "stream.json").write_text(json.dumps({**facts, "format": 8}))
    else:
        facts["parts"]["test"]["sizes"][-1] += 1
        (out / "stream.json").write_text(json.dumps(facts))
    packed_files.open_reader.cache_clear()
    with pytest.raises(UserError, match=r"(test cannot be read|has format 8).*\(data\.root=…\)"):
        build("streamed", f"data.root={out}", *SMALL).setup()


class NotAnOSError(Exception):
    """Stands for an error of a storage library, such as botocore's."""


@pytest.fixture
def flaky(remote_root, monkeypatch):
    """flaky(times, fault): the next ``times`` reads from the storage raise ``fault``."""
    monkeypatch.setattr(packed_files, "PAUSES", (0, 0, 0))
    read = RemoteStorage.download_bytes

    def make(times, fault) -> None:
        left = [times]

        def failing(self, *args):
            left[0] -= 1
            if left[0] < 0:
                return read(self, *args)
            raise fault

        monkeypatch.setattr(RemoteStorage, "download_bytes", failing)

    return make


FAULTS = [ConnectionResetError("reset\nby peer"), NotAnOSError("reset by peer")]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_cannot_be_read_is_never_skipped(build, remote_root, flaky, fault) -> None:
    data = build("streamed", f"data.root={remote_root}", *SMALL, "data.on_bad_image=skip")
    data.setup()
    flaky(2, fault)
    assert sum(len(y) for _, y in data.loader("test")) == 10
    flaky(10**9, fault)
    with pytest.raises(UserError, match=r"JPEG of .*test cannot be read: reset by peer") as raised:
        list(data.loader("test"))
    assert not isinstance(raised.value, BadImage)


def test_an_image_of_another_size_is_never_skipped(build, out, monkeypatch) -> None:
    monkeypatch.setattr(packed_files, "PAUSES", (0, 0, 0))
    facts = json.loads((out / "stream.json").read_text())
    facts["parts"]["test"]["sizes"][0] += 1
    (out / "stream.json").write_text(json.dumps(facts))
    data = build("streamed", f"data.root={out}", *SMALL, "data.on_bad_image=skip")
    data.setup()
    with pytest.raises(UserError, match=r"test cannot be read: \d+ bytes of \d+") as raised:
        list(data.loader("test"))
    assert not isinstance(raised.value, BadImage)


def test_a_failed_read_is_repeated_after_a_pause() -> None:
    assert packed_files.PAUSES[0] == 0
    assert 1 <= sum(packed_files.PAUSES) <= 5


@pytest.mark.parametrize("root", ["azure://box/a", "hf://datasets/a/b", "https://a.b/c"])
def test_other_addresses_are_refused(root) -> None:
    with pytest.raises(UserError, match=rf"^data\.root={root} must be .* s3:// or gs://$"):
        Streamed(root=root, batch_size=4)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_litdata_supports_range_requests_for_the_accepted_addresses(scheme) -> None:
    method = downloader._DOWNLOADERS[scheme].download_bytes
    assert method is not downloader.Downloader.download_bytes


class Touch:
    """An object whose unpickling creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def pack_pickles(folder: Path, made: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    chunks = Cache(str(folder), chunk_bytes="64MB")
    for row in range(10):
        chunks[row] = Touch(made)
    chunks.done()
    chunks.merge(1)


@pytest.mark.parametrize("remote", [False, True])
def test_pickles_in_a_folder_are_never_loaded(out, build, remote_root, tmp_path, remote) -> None:
    pack_pickles(out / "test", tmp_path / "made")
    assert json.loads((out / "test" / "index.json").read_text())["config"]["data_format"] == [
        "pickle"
    ]
    with pytest.raises(UserError, match=r"out/test must hold files as bytes, .*\['pickle'\]"):
        build("streamed", f"data.root={remote_root if remote else out}", *SMALL).setup()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"data_format": ["bytes", "pickle"]},
        {"data_format": None},
        {"data_spec": json.dumps([1, {"type": "collections.defaultdict", "context": "{}"}])},
    ],
)
def test_an_index_may_describe_only_bytes(out, build, change) -> None:
    path = out / "test" / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "config": {**index["config"], **change}}))
    packed_files.open_reader.cache_clear()
    with pytest.raises(UserError, match=r"must hold files as bytes"):
        build("streamed", f"data.root={out}", *SMALL).setup()


def test_without_litdata_packing_and_reading_are_refused(tree, out, build, monkeypatch) -> None:
    monkeypatch.setattr(packed_files, "find_spec", lambda _: None)
    message = r"litdata: install kd_lightning\[stream\]"
    with pytest.raises(UserError, match=message):
        prepare(*tree)
    with pytest.raises(UserError, match=message):
        build("streamed", f"data.root={out}", *SMALL).setup()


def test_with_a_full_disk_nothing_is_packed(tree, monkeypatch, tmp_path) -> None:
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        UserError, match=r"need \d+\.\d kB, but the disk of .* has 0\.1 kB left: set out=…"
    ):
        prepare(*tree)
    assert not (tmp_path / "out" / "train").exists()
