"""The fleet key: created once, private, derived from by purpose, and replaced only while nothing was made with it."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nfcli.models.environment.fleet_key import (
    FleetKey,
    adopt_fleet_key,
    ensure_fleet_key,
    find_fleet_key,
    parse_fleet_key,
    read_fleet_key,
)
from nfcli.models.environment.paths import Environment
from nfcli.models.environment.private_files import write_private
from nfcli.models.errors import KeyFileError

Modes = Callable[[Path], dict[str, str]]
KEY = FleetKey(bytes(range(32)))


@pytest.mark.usefixtures("umask")
def test_a_fleet_key_is_created_once_and_private(environment: Environment, modes: Modes) -> None:
    """Threads that start together get the same 32 random bytes, in a file that is 0600 whatever the umask."""
    assert find_fleet_key(environment) is None
    barrier = threading.Barrier(8)

    def ensure() -> FleetKey:
        barrier.wait()
        return ensure_fleet_key(environment)

    with ThreadPoolExecutor(8) as pool:
        keys = {future.result() for future in [pool.submit(ensure) for _ in range(8)]}
    assert keys == {FleetKey(bytes.fromhex(environment.fleet_key_file.read_text()))} == {read_fleet_key(environment)}
    assert [len(key.secret) for key in keys] == [32]
    assert modes(environment.keys_folder) == {"fleet.key": "0600"}


def test_each_purpose_has_a_key_of_its_own() -> None:
    """HMAC-SHA256 of the purpose; the id is one of them, so it says nothing about the others."""
    expected = hmac.new(KEY.secret, b"token-digest", hashlib.sha256).digest()
    assert KEY.derive(b"token-digest") == expected
    assert KEY.id == hmac.new(KEY.secret, b"id", hashlib.sha256).hexdigest()[:8]
    assert KEY.id != FleetKey(bytes(32)).id


def test_a_fleet_key_is_not_in_its_repr() -> None:
    """A repr may be logged."""
    assert repr(KEY) == "FleetKey()"


@pytest.mark.parametrize("content", [b"", b"f" * 63, b"F" * 64, b"g" * 64, b"\xff" * 64])
def test_what_is_no_fleet_key_is_refused_without_being_quoted(environment: Environment, content: bytes) -> None:
    """It is neither used nor overwritten."""
    write_private(environment.fleet_key_file, content)
    with pytest.raises(KeyFileError) as caught:
        ensure_fleet_key(environment)
    kind = "is not a fleet key of 64 hexadecimal digits"
    assert str(caught.value) == (
        f"{environment.fleet_key_file} {kind}: restore it, or move it away and a new one will be created"
    )
    with pytest.raises(KeyFileError) as caught:
        parse_fleet_key(content, "standard input")
    assert str(caught.value) == f"standard input {kind}: copy .nfcli/keys/fleet.key of another machine again"
    assert environment.fleet_key_file.read_bytes() == content


def test_a_key_is_adopted_where_nothing_was_made_with_the_present_one(environment: Environment, modes: Modes) -> None:
    """As on a machine where --create-env has just run; repeating it changes nothing."""
    ensure_fleet_key(environment)
    for _ in range(2):
        adopt_fleet_key(environment, KEY)
        assert read_fleet_key(environment) == KEY
    assert modes(environment.keys_folder) == {"fleet.key": "0600"}


@pytest.mark.parametrize("used", ["tokens/w2/cache.db", "logs/audit-w2.jsonl"])
def test_a_key_that_is_in_use_is_not_replaced(environment: Environment, used: str) -> None:
    """The message names a worker that used it, both keys by their ids, and the remedy; the same key is accepted."""
    held = ensure_fleet_key(environment)
    file = environment.state_folder / used
    file.parent.mkdir(exist_ok=True)
    file.write_text("x")
    with pytest.raises(KeyFileError) as caught:
        adopt_fleet_key(environment, KEY)
    path = environment.fleet_key_file
    assert str(caught.value) == (
        f"{path} is another fleet key ({held.id}, not {KEY.id}) and in use by w2, nothing changed: stop the workers, "
        f"move {path} away and repeat; fingerprints and backups made with it no longer match"
    )
    assert read_fleet_key(environment) == held
    adopt_fleet_key(environment, held)
    path.unlink()
    adopt_fleet_key(environment, KEY)
    assert read_fleet_key(environment) == KEY
