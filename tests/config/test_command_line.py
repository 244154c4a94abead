"""A command ends with one sentence and an exit code."""

import pytest

from kd_lightning.base.conf_folder import CONF
from kd_lightning.base.errors import UserError
from kd_lightning.base.interrupts import Interrupted
from kd_lightning.config.command_line import report_errors


def refuse() -> None:
    raise UserError("no file (…weights=…)")


def fail() -> None:
    assert False, "ours"  # noqa: B011, PT015


def test_the_folder_of_the_configuration_exists() -> None:
    assert (CONF / "config.yaml").is_file()


def test_a_mistake_ends_the_program_with_one_line_and_code_2(
    capsys: pytest.CaptureFixture,
) -> None:
    with pytest.raises(SystemExit) as end, report_errors():
        refuse()
    assert end.value.code == 2
    assert capsys.readouterr().err == "Error: no file (…weights=…)\n"


def test_a_bug_keeps_its_traceback(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(AssertionError, match="ours"), report_errors():
        fail()
    assert capsys.readouterr().err == ""


def test_a_mistake_has_a_traceback_if_the_variable_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KD_LIGHTNING_TRACEBACK", "1")
    with pytest.raises(UserError), report_errors():
        refuse()


@pytest.mark.parametrize("signum", [2, 15])
def test_an_interrupt_ends_with_the_command_that_resumes(
    signum: int, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as end, report_errors():
        raise Interrupted(signum, "resume with: python -m kd_lightning.run resume=x")
    assert end.value.code == 128 + signum
    assert (
        "Interrupted: resume with: python -m kd_lightning.run resume=x" in capsys.readouterr().err
    )
