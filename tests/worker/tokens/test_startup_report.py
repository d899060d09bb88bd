"""What is logged of a token database that was opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfcli.worker.tokens.rows import LoadedTokens
from nfcli.worker.tokens.startup_report import log_open_report

NOW = 1_780_000_000.0


def report(caplog: pytest.LogCaptureFixture, folder: Path, **loaded: float) -> list[str]:
    """Return what is logged."""
    counts = {"pickled": 0, "invalid": 0, **loaded}
    log_open_report(LoadedTokens([], **counts), folder, NOW)  # type: ignore[arg-type]
    assert {record.levelname for record in caplog.records} <= {"WARNING"}
    return caplog.messages


@pytest.mark.parametrize("latest", [None, NOW - 1e6, NOW, NOW + 60])
def test_nothing_is_logged_of_a_database_as_it_should_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, latest: float | None
) -> None:
    """The clock may be up to a minute behind."""
    log_open_report(LoadedTokens([], 0, 0, latest), tmp_path, NOW)
    assert caplog.messages == []


def test_skipped_rows_are_counted_with_the_remedy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By kind; a folder with a blank in its name is quoted where it is to be typed."""
    folder = tmp_path / "a b"
    assert report(caplog, folder, pickled=2, invalid=3) == [
        (
            f"skipped 2 pickled rows of the token database in {folder}, since unpickling can run arbitrary code "
            f"(NorFab workers write such rows): import their tokens with nfcli --import-norfab '{folder}'"
        ),
        (
            f"skipped 3 rows of the token database in {folder} that hold no valid token: "
            "store these tokens again with fastmcp auth create-token"
        ),
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_a_database_of_norfab_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int) -> None:
    """NorFab's workers store one in folders below; the first is shown."""
    for number in range(count):
        file = tmp_path / f"00{number}" / "cache.db"
        file.parent.mkdir()
        file.touch()
    assert report(caplog, tmp_path) == [
        (
            f"ignoring a NorFab database in {tmp_path} (000/cache.db and others): "
            f"import its tokens with nfcli --import-norfab {tmp_path}"
        )
    ]


def test_an_invalid_time_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Expired tokens may be valid again."""
    assert report(caplog, tmp_path, has_invalid_latest=True) == [
        f"ignoring invalid high-water timestamp in token database {tmp_path}"
    ]


def test_a_clock_that_is_behind_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With how far, in whole seconds."""
    assert report(caplog, tmp_path, latest=NOW + 60.6) == [
        (
            f"the clock is 0:01:01 behind the latest time that the token database in {tmp_path} has seen: "
            "tokens expire by the later time, set the clock right"
        )
    ]
