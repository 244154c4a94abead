"""A word that a command does not take ends it with one sentence and exit code 2."""

import pytest
from hydra._internal.utils import get_args_parser

from kd_lightning import evaluate, export, predict, run
from kd_lightning.config.options import command_parser

PREDICT, EVALUATE = ("python -m kd_lightning." + name for name in ("predict", "evaluate"))
SENTENCES = {
    # people write a key of Hydra like an option
    (evaluate, "--data.root=x"): f"--data.root=x is a key and no option of {EVALUATE}: write "
    "data.root=x, without --",
    (evaluate, "a --data.root x"): f"--data.root is a key and no option of {EVALUATE}: write "
    "data.root=…, without --",
    (evaluate, "a --split=val"): f"--split=val is a key and no option of {EVALUATE}: write "
    "split=val, without --",
    (predict, "--data.root=x"): f"{PREDICT} takes options and no keys such as data.root=x "
    f"({PREDICT} --help)",
    # an unknown option is named before a missing argument
    (predict, "--studnet b"): f"unknown option --studnet: did you mean --student? ({PREDICT} "
    "--help lists all)",
    (evaluate, "a --coruptions=fog"): "unknown option --coruptions: did you mean --corruptions? "
    f"({EVALUATE} --help lists all)",
    (predict, "a b -x"): f"unknown option -x ({PREDICT} --help lists all)",
    (predict, "a b --xyz"): f"unknown option --xyz ({PREDICT} --help lists all)",
    # what argparse finds
    (predict, "a"): f"the following arguments are required: inputs ({PREDICT} --help)",
    (predict, "a b --top-k z"): f"--top-k: invalid int value: 'z' ({PREDICT} --help)",
    (export, "a --out"): "--out: expected one argument (python -m kd_lightning.export --help)",
}


@pytest.mark.parametrize(("words", "sentence"), SENTENCES.items(), ids=lambda x: str(x[1]))
def test_a_wrong_word_is_one_sentence(
    words: tuple, sentence: str, capsys: pytest.CaptureFixture
) -> None:
    command, line = words
    with pytest.raises(SystemExit) as stopped:
        command.main(line.split())
    assert stopped.value.code == 2
    assert capsys.readouterr() == ("", f"Error: {sentence}\n")


def test_right_words_are_taken() -> None:
    parser = command_parser("some", "Does something.", takes_keys=True)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--number", "-n", type=int)
    assert parser.parse_args(["--num=3", "data.root=-x", "-"]).number == 3
    assert parser.parse_intermixed_args(["a", "-n4", "b"]).words == ["a", "b"]
    assert parser.parse_args(["-n", "-1"]).number == -1
    assert parser.parse_args(["--", "--data.root=x"]).words == ["--data.root=x"]


@pytest.mark.parametrize("words", [["--data.root=x"], ["-m", "--data.root=x"], ["-m", "-cd"]])
def test_a_run_ends_with_one_sentence_too(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["run", *words])
    with pytest.raises(SystemExit) as stopped:
        run.main()
    assert stopped.value.code == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    expected = "write data.root=x, without --" if "=" in words[-1] else "expected one argument"
    assert expected in error


def test_the_options_of_a_run_are_those_of_hydra() -> None:
    known = {name for action in get_args_parser()._actions for name in action.option_strings}
    assert known == run.OPTIONS
