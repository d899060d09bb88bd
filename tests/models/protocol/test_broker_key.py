"""Where a broker's public key is searched, and which of several is used."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import zmq

from nfcli.models.environment.paths import Environment
from nfcli.models.errors import InventoryError
from nfcli.models.inventory.schema import Broker
from nfcli.models.protocol.broker_key import BrokerKey, find_broker_key

ENDPOINT = "tcp://b:1"
OWN = "__norfab__/files/broker/public_keys/broker.key"


def new_key() -> str:
    """Return a public key."""
    return zmq.curve_keypair()[0].decode()


def write(file: Path, key: str, *, mode: int = 0o644) -> Path:
    """Write a key file as NorFab does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'#   comment\nmetadata\ncurve\n    public-key = "{key}"\n')
    file.chmod(mode)
    return file


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return an environment that NorFab may have files in."""
    environment = Environment(tmp_path, tmp_path / "inventory.yaml")
    environment.prepare()
    return environment


def test_the_file_of_a_broker_that_runs_here_comes_first(environment: Environment) -> None:
    """As in NorFab; a different key in the inventory is reported."""
    key, other = new_key(), new_key()
    file = write(environment.folder / OWN, key)
    assert find_broker_key(environment, Broker(endpoint=ENDPOINT)) == BrokerKey(key.encode(), str(file))
    assert find_broker_key(environment, Broker(endpoint=ENDPOINT, shared_key=key)) == BrokerKey(key.encode(), str(file))
    notice = f"{file} is used, not broker.shared_key, which is a different key"
    assert find_broker_key(environment, Broker(endpoint=ENDPOINT, shared_key=other)) == BrokerKey(
        key.encode(), str(file), notice
    )


def test_the_inventory_s_key_precedes_copies(environment: Environment) -> None:
    """Copies may be older."""
    key = new_key()
    write(environment.keys_folder / "broker.key", new_key())
    write(environment.folder / "__norfab__/files/worker/w1/public_keys/broker.key", new_key())
    found = find_broker_key(environment, Broker(endpoint=ENDPOINT, shared_key=key))
    assert found == BrokerKey(key.encode(), "broker.shared_key")


def test_a_key_among_our_own_precedes_norfab_s_copies(environment: Environment) -> None:
    """It was put there on purpose."""
    key = new_key()
    file = write(environment.keys_folder / "broker.key", key, mode=0o600)
    write(environment.folder / "__norfab__/files/client/c/public_keys/broker.key", new_key())
    assert find_broker_key(environment, Broker(endpoint=ENDPOINT)) == BrokerKey(key.encode(), str(file))


def test_norfab_s_copies_are_used_if_they_agree(environment: Environment) -> None:
    """NorFab keeps one in the folder of each worker and client."""
    key = new_key()
    first = write(environment.folder / "__norfab__/files/client/c/public_keys/broker.key", key)
    second = write(environment.folder / "__norfab__/files/worker/w1/public_keys/broker.key", key)
    found = find_broker_key(environment, Broker(endpoint=ENDPOINT))
    assert found is not None
    assert (found.key, found.source in {str(first), str(second)}) == (key.encode(), True)
    write(second, new_key())
    with pytest.raises(InventoryError, match="are different keys: set shared_key to the right one"):
        find_broker_key(environment, Broker(endpoint=ENDPOINT))


def test_a_missing_key_is_an_error(environment: Environment) -> None:
    """The message names the two places to put it."""
    line = (
        f"{environment.inventory_file}: broker: its public key is not known: set shared_key to it, "
        f"or put the broker's broker.key there as {environment.keys_folder / 'broker.key'}"
    )
    with pytest.raises(InventoryError, match=f"^{re.escape(line)}$"):
        find_broker_key(environment, Broker(endpoint=ENDPOINT))


def test_without_curve_no_key_is_needed(environment: Environment) -> None:
    """`zmq_auth: false` in the inventory."""
    assert find_broker_key(environment, Broker(endpoint=ENDPOINT, zmq_auth=False)) is None


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_key_file_that_others_can_write_is_refused(environment: Environment, is_folder: bool) -> None:
    """They could impersonate the broker."""
    file = write(environment.folder / OWN, new_key())
    wide = file.parent if is_folder else file
    wide.chmod(wide.stat().st_mode | 0o002)
    with pytest.raises(InventoryError, match=f"^{wide} .*can be changed by other users.*: run chmod o-w {wide}$"):
        find_broker_key(environment, Broker(endpoint=ENDPOINT))


def test_a_key_file_of_another_user_is_refused(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root and the own account are trusted."""
    write(environment.folder / OWN, new_key())
    if os.geteuid() == 0:
        os.chown(environment.folder / OWN, 12_345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    with pytest.raises(InventoryError, match=r"belongs to user \w+, who would control nfcli: .*run chown"):
        find_broker_key(environment, Broker(endpoint=ENDPOINT))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('curve\n    public-key = "x"\n', "line 2: public-key "),
        ("nothing", "public-key"),
        ("#" * 5_000, "4096 bytes"),
        (f'curve\n  public-key = "{"a" * 40}"\n  secret-key = "{"a" * 40}"\n', "holds a secret key"),
    ],
)
def test_an_invalid_key_file_is_named(environment: Environment, text: str, reason: str) -> None:
    """With what is wrong with it."""
    file = write(environment.folder / OWN, new_key())
    file.write_text(text)
    with pytest.raises(InventoryError, match=f"^{re.escape(str(file))} .*{re.escape(reason)}"):
        find_broker_key(environment, Broker(endpoint=ENDPOINT))


def test_an_unreadable_key_file_is_named(environment: Environment) -> None:
    """With the system's reason."""
    file = environment.folder / "__norfab__/files/worker/w1/public_keys/broker.key"
    (file / "x").mkdir(parents=True)
    with pytest.raises(InventoryError, match=f"^{file} .*Is a directory$"):
        find_broker_key(environment, Broker(endpoint=ENDPOINT))
