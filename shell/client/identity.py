"""Who runs this process, as its jobs report it to the workers' audit trails."""

from __future__ import annotations

import os
import pwd

MAX_CHARACTERS = 128


def local_user() -> str:
    """Return `user@host` of this process, and behind it, under sudo, the user that called it.

    A report for people, not a proof, of at most 128 characters. A user without a name is given by number.
    """
    user, caller = _user_name(os.geteuid()), os.environ.get("SUDO_USER", "")
    by_sudo = f" (sudo: {caller})" if caller and caller != user else ""
    # The environment may hold bytes that are no UTF-8, which can't be sent.
    return f"{user}@{os.uname().nodename}{by_sudo}".encode("utf-8", "replace").decode()[:MAX_CHARACTERS]


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
