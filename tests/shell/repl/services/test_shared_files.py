"""Addresses of shared files are completed, in commands of the file service as in those of any service."""

from __future__ import annotations

from typing import Any

import pytest

from nfcli.models.commands.base import entries
from nfcli.models.commands.filesharing import CopyFile, ListFiles, ShowFile
from nfcli.shell.repl.completion_values import ValueSuggester
from nfcli.shell.repl.services.shared_files import SharedFiles
from support.fabric.worker import eventually
from support.shell.fake_client import FakeClient


class FilesClient(FakeClient):
    """A client of a fabric that shares two folders."""

    def run_job(self, service: str, task: str, **options: Any) -> dict[str, dict[str, Any]]:
        """List a folder."""
        assert (service, task, options["workers"]) == ("filesharing", "list_files", "any")
        names = {"nf://": ["maps", "text.txt"], "nf://maps/": ["a.json", "b\x1b", "b.json"]}[options["kwargs"]["url"]]
        return {"f1": {"result": names, "failed": False, "errors": []}}


@pytest.mark.parametrize("model", [CopyFile, ListFiles, ShowFile])
def test_addresses_are_completed(model: Any) -> None:
    """One folder after the other; names that can't be typed are left out."""
    client = FilesClient("w1")
    suggester = ValueSuggester(client, files=SharedFiles(client, lambda: {"filesharing": "1 worker"}))
    url = entries(model)["url"]
    for typed, found in (
        ("nf://", ["nf://maps", "nf://text.txt"]),
        ("nf://t", ["nf://text.txt"]),
        ("nf://maps/", ["nf://maps/a.json", "nf://maps/b.json"]),
        ("n", ["nf://"]),
    ):
        assert eventually(lambda typed=typed, found=found: suggester.suggest(url, typed) == found), typed


def test_without_a_file_service_nothing_is_asked() -> None:
    """As in direct mode."""
    client = FilesClient("w1")
    suggester = ValueSuggester(client, files=SharedFiles(client, dict))
    assert suggester.suggest(entries(CopyFile)["url"], "nf://") == []
    assert suggester.suggest(entries(CopyFile)["url"], "n") == []
