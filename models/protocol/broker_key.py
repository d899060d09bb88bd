"""Find the public key of a NorFab broker, in the places and the order that NorFab uses.

Public keys are not secret, so anybody may read these files; they are used only if no other account can write to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..environment.curve_keys import read_shared_key
from ..environment.paths import NORFAB_FOLDER, Environment
from ..errors import InventoryError, KeyFileError
from ..inventory.schema import Broker

FILE_NAME = "broker.key"


@dataclass(frozen=True)
class BrokerKey:
    """A broker's public key (40 characters of Z85), its source, and a notice for the user about that, if any."""

    key: bytes
    source: str
    notice: str = ""


def find_broker_key(environment: Environment, broker: Broker) -> BrokerKey | None:
    """Return a broker's public key; None if the inventory says that it doesn't use CURVE.

    Searched in this order: the file of a broker that runs in this environment, `shared_key` of the inventory,
    `.nfcli/keys/broker.key`, the copies that NorFab's own workers and clients keep here.

    Raises:
        InventoryError: no key was found, one can't be read, or NorFab's copies differ.
    """
    if not broker.zmq_auth:
        return None
    own = norfab_files(environment) / "broker" / "public_keys" / FILE_NAME
    shared = broker.shared_key
    if own.is_file():
        key = _read(own)
        differs = shared is not None and shared.encode() != key
        notice = f"{own} is used, not broker.shared_key, which is a different key"
        return BrokerKey(key, str(own), notice if differs else "")
    if shared is not None:
        return BrokerKey(shared.encode(), "broker.shared_key")
    kept = environment.keys_folder / FILE_NAME
    if kept.is_file():
        return BrokerKey(_read(kept), str(kept))
    return _copied(environment, kept)


def norfab_files(environment: Environment) -> Path:
    """Return the folder of NorFab's own files, next to the inventory."""
    return environment.folder / NORFAB_FOLDER / "files"


def _copied(environment: Environment, kept: Path) -> BrokerKey:
    files = norfab_files(environment)
    copies = sorted(path for kind in ("worker", "client") for path in files.glob(f"{kind}/*/public_keys/{FILE_NAME}"))
    keys = {_read(path): path for path in reversed(copies)}
    if not keys:
        raise InventoryError(
            f"{environment.inventory_file}: broker: its public key is not known: "
            f"set shared_key to it, or put the broker's {FILE_NAME} there as {kept}"
        )
    if len(keys) > 1:
        first, second = list(keys.values())[:2]
        raise InventoryError(
            f"{environment.inventory_file}: broker: {second} and {first} are different keys: "
            f"set shared_key to the right one"
        )
    ((key, path),) = keys.items()
    return BrokerKey(key, str(path))


def _read(path: Path) -> bytes:
    try:
        return read_shared_key(path).public
    except KeyFileError as error:
        raise InventoryError(str(error)) from None
