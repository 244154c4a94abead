"""From an error to what a user sees: a sentence for a mistake, a traceback for a bug."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import compose
from kd_lightning.config.user_messages import user_message


def refuse() -> None:
    raise UserError("no file (…weights=…)")


def fail() -> None:
    assert False, "ours"  # noqa: B011, PT015


def caught(function, *arguments) -> Exception:
    with pytest.raises(Exception) as info:  # noqa: PT011
        function(*arguments)
    return info.value


def building(target: str, **more) -> Exception:
    """The error of building ``target`` at the key method.students.a."""
    cfg = OmegaConf.create({"method": {"students": {"a": {"_target_": target, **more}}}})
    error = caught(instantiate, cfg.method.students.a)
    assert isinstance(error, InstantiationException)
    return error


def test_a_users_mistake_has_its_own_sentence() -> None:
    assert user_message(UserError("seed must be\na whole number")) == "seed must be a whole number"


def test_while_building_the_sentence_gets_the_complete_key() -> None:
    sentence = user_message(building(f"{__name__}.refuse"))
    assert sentence == "no file (method.students.a.weights=…)"


def test_a_library_that_refuses_a_value_is_quoted() -> None:
    sentence = user_message(building("torch.nn.Dropout", p=2))
    assert "Dropout refuses its arguments: dropout probability has to be" in sentence
    assert sentence.endswith("(method.students.a.…=…)")


@pytest.mark.parametrize("error", [AssertionError, AttributeError, TypeError, KeyError, OSError])
def test_a_bug_has_no_sentence(error: type[Exception]) -> None:
    assert user_message(error("ours")) == ""
    assert user_message(FileNotFoundError(errno.ENOENT, "No such file", "ours.py")) == ""


def test_a_bug_while_building_has_no_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kd_lightning.models.perceptron.check_rate", lambda *_: fail())
    error = building("kd_lightning.models.perceptron.mlp", num_inputs=4, widths=[2], num_classes=2,
                     in_chans=1)  # fmt: skip
    assert "ours" in str(error)
    assert user_message(error) == ""


def test_a_bug_while_a_mistake_is_handled_has_no_sentence() -> None:
    def handle() -> None:
        try:
            refuse()
        except UserError:
            fail()

    assert user_message(caught(handle)) == ""


def test_an_error_raised_from_a_mistake_has_its_sentence() -> None:
    def wrap() -> None:
        try:
            refuse()
        except UserError as error:
            raise RuntimeError("in the middle of things") from error

    assert user_message(caught(wrap)) == "no file (…weights=…)"


def test_the_last_line_of_a_loading_processs_traceback_is_the_message() -> None:
    text = (
        "Caught BadImage in DataLoader worker process 0.\nOriginal Traceback (most recent call "
        "last):\n  File a, line 1\n"
        "kd_lightning.data.loading.batches.BadImage: cat.jpg must be an image: cut\n"
    )
    assert user_message(UserError(text)) == "cat.jpg must be an image: cut"


def test_a_loading_process_that_was_killed_has_a_sentence() -> None:
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[int]:
            os.kill(os.getpid(), signal.SIGKILL)
            yield 0

    loader = torch.utils.data.DataLoader(Endless(), num_workers=1)
    message = user_message(caught(lambda: next(iter(loader))))
    assert message.startswith("a process that loads data was ended from outside")
    assert "data.num_workers=…" in message


def test_a_rank_whose_neighbour_has_ended_says_so() -> None:
    error = RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [::1]:36528")
    assert user_message(error).startswith("another process of this run has ended")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "is full, writing a.ckpt: free some space, or write elsewhere (outputs"),
        (errno.EDQUOT, "is full, writing a.ckpt"),
        (errno.EFBIG, "is full, writing a.ckpt"),
        (errno.EACCES, "cannot read or write a.ckpt: Permission denied (outputs=… or data.root"),
        (errno.EROFS, "cannot read or write a.ckpt: Read-only file system"),
        (errno.EMFILE, "too many files are open at once: raise the limit (ulimit -n"),
        (errno.ENOMEM, "the memory is not enough: [Errno 12] Cannot allocate memory"),
    ],
)
def test_errors_of_the_operating_system(number: int, message: str) -> None:
    error = OSError(number, os.strerror(number), "a.ckpt")
    assert message in user_message(error)

    def wrap() -> None:
        try:
            raise error
        finally:
            fail()  # as torch.save does when its file was not written

    assert message in user_message(caught(wrap))


# What the program prints


def test_a_missing_file_has_no_sentence(tmp_path: Path) -> None:
    assert user_message(caught((tmp_path / "gone").read_text)) == ""


@pytest.fixture
def own(tmp_path: Path):
    """own(content): the sentence about a person's own data/mine.yaml with this content."""

    def refused(content: bytes) -> str:
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "mine.yaml").write_bytes(content)
        sentence = user_message(caught(compose, ["data=mine"], tmp_path, "evaluate"))
        assert sentence.isprintable()
        return sentence.replace(f"{tmp_path}/", "")

    return refused


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", "data/mine.yaml, line 3: expected YAML, expected ',' or ']'"),
        (b"a: 1\na: 2\n", "data/mine.yaml, line 2: expected YAML, found duplicate key a"),
        (b"a: 1\n\tb: 2\n", "data/mine.yaml, line 2: expected YAML, found character"),
        (b"a: 1\0\n", "data/mine.yaml must be a YAML file in UTF-8"),
        ("a: caf\u00e9\n".encode("latin-1"), "data/mine.yaml must be a YAML file in UTF-8"),
        ("a: 1\n".encode("utf-16"), "data/mine.yaml must be a YAML file in UTF-8"),
        (b"defaults:\na: 1\n", "Invalid defaults list in 'data/mine'"),
        (b"defaults: ['dig\\u2028ts']\n", "data/mine"),
    ],
)
def test_a_yaml_file_that_cannot_be_read_is_named_with_its_line(
    own, content: bytes, said: str
) -> None:
    assert said in own(content)


def test_a_sentence_has_only_signs_that_can_be_printed() -> None:
    assert user_message(UserError("a\x1b[31m\udce9")) == r"a\x1b[31m\udce9"


@pytest.mark.parametrize(
    ("function", "shape", "said"),
    [
        (torch.empty, (1 << 50,), "4503599.6 GB were asked for at once"),
        (np.empty, (1 << 50,), "8.00 PiB were asked for at once"),
        (torch.empty, (1 << 40, 1 << 40), "Storage size calculation overflowed with sizes=["),
    ],
)
def test_too_little_memory_is_one_sentence(function: Callable, shape: tuple, said: str) -> None:
    sentence = user_message(caught(function, shape))
    assert sentence.startswith(f"the memory is not enough: {said}")
    assert ". " not in sentence


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "HIP out of memory. Tried to allocate 2.00 GiB",
        "MPS backend out of memory (MPS allocated: 9.05 GB)",
    ],
)
def test_too_little_memory_of_a_gpu_is_one_sentence_too(text: str) -> None:
    assert user_message(RuntimeError(text)).startswith("the memory is not enough: ")
