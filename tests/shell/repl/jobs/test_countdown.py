"""A question at a terminal that has to be answered in time."""

from __future__ import annotations

import sys
from typing import Any

import pexpect
import pytest

PROGRAM = "from nfcli.shell.repl.jobs.countdown import ask_in_time; print('typed', ask_in_time('Go on?', {}))"
WAIT_SECONDS = 60.0


def ask(seconds: str) -> Any:
    """Start a program that asks and prints what was typed."""
    return pexpect.spawn(sys.executable, ["-c", PROGRAM.format(seconds)], encoding="utf-8", timeout=WAIT_SECONDS)


@pytest.mark.parametrize(("typed", "printed"), [("y\r", "y"), ("\r", ""), ("\x03", "None"), ("\x04", "None")])
def test_what_is_typed_is_the_answer(typed: str, printed: str) -> None:
    """After Ctrl-C and Ctrl-D there is none."""
    with ask("3600") as program:
        program.expect("Go on. 3[56][0-9][0-9] s left:")
        program.send(typed)
        program.expect_exact(f"typed {printed}\r\n")
        program.expect(pexpect.EOF)


def test_the_wait_for_an_answer_ends_in_time() -> None:
    """The terminal is on a new line then."""
    with ask("0.5") as program:
        program.expect_exact("Go on? 1 s left:")
        program.expect_exact("typed None\r\n")
        program.expect(pexpect.EOF)
