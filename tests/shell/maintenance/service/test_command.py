"""`--install-service` as a person runs it: a unit on stdout or in its file, what to run on stderr."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfcli.models.errors import ServiceError
from nfcli.shell.maintenance.service.command import install_service
from support.workers import EnvironmentFactory


@pytest.fixture(autouse=True)
def _ann(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Work in a home."""
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(home)


def test_a_user_installs_a_service_for_the_default_environment(home: Path) -> None:
    """By the name that means the same in any working folder; the state's folder is made."""
    said: list[str] = []
    assert install_service(None, "nfcli", for_user=True, is_dry_run=False, notice=said.append, user_id=1000) == 0
    unit = home / ".config" / "systemd" / "user" / "nfcli.service"
    assert " -i default -w\n" in unit.read_text()
    assert said[0] == f"{unit} written; then:"
    assert said[1].startswith("  start it, now and whenever you log in: systemctl --user daemon-reload && ")
    assert said[-1].startswith("  manage its tokens: ")
    assert said[-1].replace("'", "").endswith("nfcli -c -i default fastmcp auth list-tokens")


def test_a_dry_run_prints_the_unit_and_writes_none(
    home: Path, environment_factory: EnvironmentFactory, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the environment and the state that were named."""
    environment = environment_factory()
    said: list[str] = []
    state = tmp_path / "state"
    options = {"for_user": True, "is_dry_run": True, "user_id": 1000}
    install_service(environment.inventory_file, "lab", notice=said.append, state=state, **options)
    assert f" -i {environment.inventory_file} --state {state} -w\n" in capsys.readouterr().out
    assert said[0] == f"this would be {home}/.config/systemd/user/lab.service; then:"
    assert not (home / ".config").exists()


def test_the_unit_of_the_system_is_for_root(environment_factory: EnvironmentFactory) -> None:
    """The line has a command that prints it for root, and the other way."""
    options = {"for_user": False, "is_dry_run": False, "user_id": 1000}
    with pytest.raises(ServiceError, match=r"^only root can write .*\.service: run .* --dry-run \| sudo tee .*--user"):
        install_service(environment_factory().inventory_file, "lab", notice=lambda _: None, **options)
