"""A process that holds secrets leaves no core dump, even where something raises its limit again."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

import pytest

FORBID = "from nfcli.models.environment.core_dumps import forbid_core_dumps; forbid_core_dumps(); "
RAISE_LIMIT = (
    "import resource; _, hard = resource.getrlimit(resource.RLIMIT_CORE); "
    "resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)); "
)


def dumps_core(code: str, folder: object) -> bool:
    """Abort a Python that ran this code, in this folder; return whether the kernel dumped its memory."""
    command = [sys.executable, "-X", "faulthandler=0", "-c", f"{code}import os; os.abort()"]
    child = subprocess.Popen(command, cwd=str(folder), stderr=subprocess.DEVNULL, preexec_fn=_raise_limit)  # noqa: PLW1509
    _, status = os.waitpid(child.pid, 0)
    child.returncode = status
    assert os.WTERMSIG(status) == signal.SIGABRT
    return os.WCOREDUMP(status)


def _raise_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


@pytest.fixture(autouse=True)
def _system_dumps_core(tmp_path: object) -> None:
    if not dumps_core("", tmp_path):
        pytest.skip("this system dumps no core")


def test_no_core_is_dumped(tmp_path: object) -> None:
    """The limit of the process that started it was high."""
    assert not dumps_core(FORBID, tmp_path)


def test_the_limit_is_not_all(tmp_path: object) -> None:
    """Systems whose `core_pattern` names a program ignore it."""
    assert not dumps_core(FORBID + RAISE_LIMIT, tmp_path)
