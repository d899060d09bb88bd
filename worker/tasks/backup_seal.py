"""The seal of a backup: an HMAC that only machines with the same fleet key can make and verify."""

from __future__ import annotations

import hmac

from ...models.environment.fleet_key import FleetKey
from ...models.errors import TaskError
from ...models.tasks.backup import BackupSeal

SEAL_PURPOSE = b"backup-seal"
"""Of the fleet key."""
ACCEPT_IT = "or, if nobody else could write the file since, repeat with --unverified"


def seal_backup(key: FleetKey, *, size: int, sha256: str, worker: str, time: str) -> BackupSeal:
    """Return the seal of a database with this size and SHA-256 (hexadecimal)."""
    return BackupSeal(worker=worker, time=time, key=key.id, seal=_hmac(key, size, sha256, worker, time))


def verify_seal(key: FleetKey, seal: BackupSeal | None, *, size: int, sha256: str, unverified: bool) -> bool:
    """Return whether a backup is proven to be as a machine of this fleet made it.

    `unverified` accepts one that has no seal, or that of another fleet key, but none whose seal is wrong.

    Raises:
        TaskError: it is not accepted; the message names the rule and the remedy.
    """
    if seal is not None and seal.key == key.id:
        if not hmac.compare_digest(seal.seal, _hmac(key, size, sha256, seal.worker, seal.time)):
            raise TaskError("the backup was altered since it was sealed, nothing changed: use another backup")
        return True
    if unverified:
        return False
    if seal is None:
        raise TaskError(
            "the backup has no seal, as earlier versions wrote them, so an altered one can't be told from it, nothing "
            f"changed: use a newer backup, {ACCEPT_IT}"
        )
    raise TaskError(
        f"the backup was sealed with another fleet key ({seal.key}, here {key.id}), so it can't be verified, nothing "
        f"changed: give this machine that fleet key (man page backup), {ACCEPT_IT}"
    )


def _hmac(key: FleetKey, size: int, sha256: str, worker: str, time: str) -> str:
    content = f"nfcli backup 2\n{size}\n{sha256}\n{worker}\n{time}\n{key.id}\n"
    return hmac.digest(key.derive(SEAL_PURPOSE), content.encode(), "sha256").hex()
