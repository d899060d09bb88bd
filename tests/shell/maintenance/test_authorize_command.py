"""`--authorize KEYFILE` and `--fleet-key FILE`: what they write, and what is refused before anything is written."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import zmq

from nfcli.models.environment.curve_keys import (
    ClientKey,
    ensure_client_key,
    ensure_key_pair,
    format_certificate,
    read_client_key,
    read_public_key,
    read_shared_key,
)
from nfcli.models.environment.fleet_key import FleetKey, ensure_fleet_key, read_fleet_key
from nfcli.models.environment.paths import Environment
from nfcli.shell.cli import main

KEY = FleetKey(bytes(range(32)))


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Provide an environment in which no worker has been started."""
    made = Environment(tmp_path / "environment", tmp_path / "environment" / "inventory.yaml")
    made.prepare()
    (made.folder / "inventory.yaml").write_text("workers: {w1: [{service: fastmcp, port: 0}]}\n")
    return made


@pytest.fixture
def ann(tmp_path: Path) -> Path:
    """Provide the public key file of a client on another machine."""
    folder = tmp_path / "other machine"
    folder.mkdir(mode=0o755)
    ensure_key_pair(folder, "ann-laptop")
    (folder / "ann-laptop.key").chmod(0o644)
    return folder / "ann-laptop.key"


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    """Provide a file with a fleet key."""
    file = tmp_path / "carried"
    file.write_text(f"{KEY.secret.hex()}\n")
    file.chmod(0o600)
    return file


def authorize(environment: Environment, key_file: Path, *options: str) -> int:
    """Run the command in the environment."""
    return main(["-i", str(environment.inventory_file), "--authorize", str(key_file), *options])


def test_a_client_is_authorized_by_its_public_key(
    environment: Environment, ann: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The copy is private and bears the file's name; repeating it changes nothing, under another name too."""
    assert authorize(environment, ann) == 0
    copy = environment.clients_folder / "ann-laptop.key"
    assert copy.read_bytes() == ann.read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o600
    again = ann.rename(ann.with_name("other.key"))
    assert authorize(environment, again) == 0
    assert [path.name for path in environment.clients_folder.iterdir()] == ["ann-laptop.key"]
    assert capsys.readouterr().err == (
        "nfcli: client ann-laptop is authorized\nnfcli: this key was authorized before, as ann-laptop\n"
    )


def test_another_key_does_not_take_a_name_that_is_in_use(
    environment: Environment, ann: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither that of an authorized client nor that of the environment's own, which a new pair would overwrite."""
    assert authorize(environment, ann) == 0
    ensure_key_pair(tmp_path, "ann-laptop")
    ensure_key_pair(tmp_path, "client")
    capsys.readouterr()
    assert [authorize(environment, tmp_path / name) for name in ("ann-laptop.key", "client.key")] == [1, 1]
    taken, own = capsys.readouterr().err.splitlines()
    file = environment.clients_folder / "ann-laptop.key"
    assert taken == (
        f"nfcli: {file} authorizes another key by that name, nothing changed: copy the file to another name, or remove "
        "that one first"
    )
    assert own == (
        "nfcli: client.key is the name of this environment's own client, nothing changed: copy the file to another "
        "name, for instance ann-laptop.key"
    )
    assert read_public_key(file) == read_public_key_of(ann)


def read_public_key_of(file: Path) -> bytes:
    """Read a public key file that others may read."""
    file.chmod(0o600)
    return read_public_key(file)


def test_the_environments_own_client_is_authorized_again(environment: Environment) -> None:
    """After its file was removed from clients/."""
    pair = ensure_client_key(environment)
    (environment.clients_folder / "client.key").unlink()
    assert authorize(environment, environment.keys_folder / "client.key") == 0
    assert read_public_key(environment.clients_folder / "client.key") == pair.public


def test_signing_key_is_handed_on(environment: Environment, ann: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also to a client that an older version has authorized; an old file takes none away."""
    copy = environment.clients_folder / "ann-laptop.key"
    public = read_shared_key(ann).public
    ann.write_bytes(format_certificate(public))
    assert authorize(environment, ann) == 0
    assert read_client_key(copy).signing is None
    ann.write_bytes(format_certificate(public, signing="0a" * 32))
    assert authorize(environment, ann) == 0
    assert read_client_key(copy) == ClientKey(public, "0a" * 32)
    ann.write_bytes(format_certificate(public))
    assert authorize(environment, ann) == 0
    assert read_client_key(copy) == ClientKey(public, "0a" * 32)
    ann.write_bytes(format_certificate(public, signing="0b" * 32))
    assert authorize(environment, ann) == 1
    assert read_client_key(copy) == ClientKey(public, "0a" * 32)
    before = "nfcli: this key was authorized before, as ann-laptop"
    assert capsys.readouterr().err.splitlines() == [
        "nfcli: client ann-laptop is authorized",
        f"{before}, and its signing key is known now",
        before,
        f"nfcli: {copy} has another signing key for this client, nothing changed: remove it first",
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ann-laptop.key_secret", "ann-laptop.key_secret holds a secret key: "),
        ("ann laptop.key", "the name of a client's key file must be "),
        ("missing.key_secret", "missing.key_secret can't be read: No such file or directory"),
        ("..key", "the name of a client's key file must be "),
        ("-x.key", "the name of a client's key file must be "),
        (f"{'x' * 65}.key", "the name of a client's key file must be "),
        ("missing.key", "missing.key can't be read: No such file or directory"),
        ("secret.key", "secret.key holds a secret key: "),
        ("empty.key", "empty.key is not a public key file: "),
        ("open.key", "can be changed by other users, who would control nfcli"),
    ],
)
def test_what_is_no_public_key_file_is_refused(
    environment: Environment, ann: Path, name: str, reason: str, request: pytest.FixtureRequest
) -> None:
    """One line; neither the client nor the fleet key that came with it is written."""
    carried, capsys = request.getfixturevalue("carried"), request.getfixturevalue("capsys")
    folder = ann.parent
    (folder / "secret.key").write_bytes((folder / "ann-laptop.key_secret").read_bytes())
    (folder / "empty.key").touch()
    for misnamed in ("ann laptop.key", "..key", "-x.key", f"{'x' * 65}.key"):
        (folder / misnamed).write_bytes(ann.read_bytes())
    (folder / "open.key").write_bytes(ann.read_bytes())
    (folder / "open.key").chmod(0o666)
    held = ensure_fleet_key(environment)
    assert authorize(environment, folder / name, "--fleet-key", str(carried)) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), reason in err) == ("", 1, True), err
    assert list(environment.clients_folder.iterdir()) == []
    assert read_fleet_key(environment) == held


def test_a_fleet_key_comes_with_a_client(
    environment: Environment, ann: Path, carried: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are written, and the key's id is printed, never the key."""
    ensure_fleet_key(environment)
    assert authorize(environment, ann, "--fleet-key", str(carried)) == 0
    assert read_fleet_key(environment) == KEY
    assert capsys.readouterr().err == f"nfcli: client ann-laptop is authorized; the fleet key is {KEY.id}\n"


def test_a_fleet_key_in_use_stops_the_authorization(environment: Environment, ann: Path, carried: Path) -> None:
    """Nothing is written."""
    held = ensure_fleet_key(environment)
    (environment.logs_folder / "audit-w1.jsonl").write_text("{}\n")
    assert authorize(environment, ann, "--fleet-key", str(carried)) == 1
    assert read_fleet_key(environment) == held
    assert list(environment.clients_folder.iterdir()) == []


def test_a_fleet_key_that_others_can_read_is_refused(
    environment: Environment, ann: Path, carried: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a secret; standard input is the way for a file of another owner."""
    carried.chmod(0o644)
    assert authorize(environment, ann, "--fleet-key", str(carried)) == 1
    assert f"run chmod 600 {carried}" in capsys.readouterr().err
    assert not environment.fleet_key_file.exists()


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_without_a_fleet_key_is_refused_as_such_whatever_its_mode(
    environment: Environment, ann: Path, tmp_path: Path, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A `chmod` of `/etc/passwd`, for instance, would lock users out."""
    (file := tmp_path / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    file.chmod(mode)
    assert authorize(environment, ann, "--fleet-key", str(file)) == 1
    assert capsys.readouterr().err == (
        f"nfcli: {file} is not a fleet key of 64 hexadecimal digits: "
        "copy .nfcli/keys/fleet.key of another machine again\n"
    )


def test_an_environment_is_created_with_a_fleet_key_from_standard_input(
    tmp_path: Path, carried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the end of `ssh host cat .nfcli/keys/fleet.key | nfcli --create-env DIR --fleet-key -`."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(carried.read_bytes())))
    assert main(["--create-env", str(tmp_path / "new"), "--fleet-key", "-"]) == 0
    assert read_fleet_key(Environment(tmp_path / "new", None)) == KEY


def test_an_environment_is_created_with_a_fleet_key_of_its_own(tmp_path: Path) -> None:
    """It can be carried to other machines before a worker has started."""
    assert main(["--create-env", str(tmp_path / "new")]) == 0
    assert len(read_fleet_key(Environment(tmp_path / "new", None)).secret) == 32


def test_an_environment_is_not_created_with_an_invalid_fleet_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written, and the content isn't shown: it may be another secret."""
    (tmp_path / "no key").write_bytes(zmq.curve_keypair()[1])
    (tmp_path / "no key").chmod(0o600)
    assert main(["--create-env", str(tmp_path / "new"), "--fleet-key", str(tmp_path / "no key")]) == 1
    assert capsys.readouterr().err == (
        f"nfcli: {tmp_path / 'no key'} is not a fleet key of 64 hexadecimal digits: "
        "copy .nfcli/keys/fleet.key of another machine again\n"
    )
    assert not (tmp_path / "new").exists()


def test_a_fleet_key_needs_a_mode_that_uses_it(carried: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A usage error."""
    assert main(["--fleet-key", str(carried), "show", "norfab", "workers"]) == 2
    assert capsys.readouterr().err == (
        "nfcli: --fleet-key needs --create-env or --authorize: name the mode that is to use the key\n"
    )


def test_verify_only_limits_the_client_that_is_authorized(
    environment: Environment, ann: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its key is in a folder of its own; the option means nothing without a key file."""
    assert authorize(environment, ann, "--verify-only") == 0
    copy = environment.verifiers_folder / "ann-laptop.key"
    assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (ann.read_bytes(), 0o600)
    assert copy.parent.stat().st_mode & 0o777 == 0o700
    assert list(environment.clients_folder.iterdir()) == []
    assert main(["-i", str(environment.inventory_file), "--verify-only"]) == 2
    assert capsys.readouterr().err == (
        "nfcli: client ann-laptop is authorized to ask about tokens\n"
        "nfcli: --verify-only needs --authorize: name the public key file of the client\n"
    )
