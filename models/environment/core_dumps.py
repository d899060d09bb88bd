"""No core dumps of a process that holds secrets, and no reading of its memory by the user's other processes."""

from __future__ import annotations

import contextlib
import ctypes
import resource

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def forbid_core_dumps() -> None:
    """Have the kernel write no core dump of this process, and let nobody but root trace it or read its memory.

    The limit alone doesn't hold where `core_pattern` names a program: see `PR_SET_DUMPABLE` in prctl(2). A program that
    this process starts isn't affected by that flag, and inherits the limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    with contextlib.suppress(OSError, ValueError):  # systems differ in what may be lowered
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    with contextlib.suppress(AttributeError, OSError):  # Linux only
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
