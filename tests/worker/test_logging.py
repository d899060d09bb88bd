"""The log: complete, private, and without credentials."""

from __future__ import annotations

import json
import logging
import os
import string
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfcli.models.errors import EnvironmentFolderError, TokenStoreBusyError, UsageError
from nfcli.worker import logging as logs
from nfcli.worker.logging import configure_logging, mask_credentials

SECRET = "s3cr3t-t0k3n/with+more~=="

Configure = Callable[..., None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the log's file."""
    return tmp_path / "worker.jsonl"


@pytest.fixture
def configure(path: Path) -> Iterator[Configure]:
    """Configure logging for the length of a test."""
    undo: list[Callable[[], None]] = []

    def start(level: str = "INFO") -> None:
        undo.append(configure_logging(path, level))

    yield start
    for restore in reversed(undo):
        restore()


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a JSON lines file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# Redaction


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("header Bearer abc.def", "header Bearer ***"),
        ("header Bearer  abc def", "header Bearer ***"),
        ("header bearer abc.def sent", "header bearer *** sent"),
        ("{'authorization': 'Bearer abc'}", "{'authorization': ***}"),
        ("[(b'authorization', b'Bearer abc'), (b'host', b'x')]", "[(b'authorization', ***), (b'host', b'x')]"),
        ("(b'authorization', b'Basic abc')", "(b'authorization', ***)"),
        ("bearer_token::abc.def", "bearer_token::***"),
        ("KeyError: 'bearer_token::abc=='", "KeyError: 'bearer_token::***'"),
        ('{"token": "a\\"b", "username": "u"}', '{"token": ***, "username": "u"}'),
        ("{'token': 'abc', 'username': 'u'}", "{'token': ***, 'username': 'u'}"),
        ("username='u' token='abc' expire=5", "username='u' token=*** expire=5"),
        ("username=u&token=abc", "username=u&token=***"),
        ("token: abc", "token: ***"),
        ("Authorization: Basic abc def", "Authorization: ***"),
        ("proxy-authorization=Digest a, b", "proxy-authorization=***"),
        ("Token=abc; x", "Token=***; x"),
        ("access_token=abc", "access_token=***"),
        ('"bearer_token": "abc"', '"bearer_token": ***'),
        ("token=12345", "token=***"),
        ("nothing to hide, 3 tokens stored", "nothing to hide, 3 tokens stored"),
        ("task bearer_token_store failed: TaskError", "task bearer_token_store failed: TaskError"),
        ("GET /mcp HTTP/1.1 401", "GET /mcp HTTP/1.1 401"),
        ("", ""),
    ],
)
def test_credentials_are_masked_in_a_text(text: str, redacted: str) -> None:
    """In each notation that libraries quote them in; the rest stays."""
    assert mask_credentials(text) == redacted


secrets = st.text(string.ascii_letters + string.digits + "-._~+/", min_size=8, max_size=60).map("q9Z".__add__)
quotations = st.sampled_from(
    [
        "Authorization: Bearer {}",
        "authorization: bearer {}, x",
        "{{'authorization': 'Bearer {}'}}",
        "[(b'authorization', b'Bearer {}')]",
        "bearer_token::{}",
        '{{"token": "{}"}}',
        "{{'username': 'u', 'token': '{}'}}",
        "BearerTokenCheckInput(token='{}')",
        "token={} expire=5",
        "Bearer {}",
    ]
)


@given(secret=secrets, quotation=quotations, before=st.text(max_size=30), after=st.text(max_size=30))
def test_no_quotation_of_a_token_survives(secret: str, quotation: str, before: str, after: str) -> None:
    """Whatever surrounds it."""
    assert secret not in mask_credentials(f"{before} {quotation.format(secret)} {after}")


# The log


def test_a_line_is_json_with_time_level_logger_and_message(configure: Configure, path: Path) -> None:
    """The time is UTC; what would act on a terminal is escaped."""
    configure()
    logging.getLogger("nfcli.worker.x").warning("hello %s\n\x1b[31m\u202e", "there")
    [line] = lines(path)
    logged = datetime.fromisoformat(line.pop("time"))
    assert line == {"level": "WARNING", "logger": "nfcli.worker.x", "message": "hello there\n\x1b[31m\u202e"}
    assert logged.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - logged) < timedelta(minutes=1)
    assert path.read_bytes().isascii()
    assert b"\x1b" not in path.read_bytes()


def test_a_credential_in_arguments_is_not_logged(configure: Configure, path: Path) -> None:
    """The formatted message is masked, not the format."""
    configure()
    logging.getLogger("uvicorn.error").error("headers %r", [(b"authorization", f"Bearer {SECRET}".encode())])
    logging.getLogger("x").error("args %s", {"token": SECRET, "username": "alice"})
    assert [line["message"] for line in lines(path)] == [
        "headers [(b'authorization', ***)]",
        "args {'token': ***, 'username': 'alice'}",
    ]


def _fail(value: str) -> None:
    try:
        {}[value]
    except KeyError as error:
        raise ValueError(f"bad {value}") from error


def test_an_exception_is_logged_without_any_value(configure: Configure, path: Path) -> None:
    """Class and stack of each in the chain; another library's message may be a secret."""
    configure()
    try:
        _fail(SECRET)
    except ValueError:
        logging.getLogger("x").exception("it broke")
    [line] = lines(path)
    first, second = line["errors"]
    assert (line["message"], first.keys(), first["type"]) == ("it broke", {"type", "where"}, "ValueError")
    assert (second.keys(), second["type"]) == ({"type", "where"}, "KeyError")
    assert [place.rsplit(" ", 1)[1] for place in first["where"]] == [
        "test_an_exception_is_logged_without_any_value",
        "_fail",
    ]
    assert SECRET not in path.read_text()


def test_our_errors_and_the_system_s_are_quoted(configure: Configure, path: Path) -> None:
    """Their messages are written for users and hold no secrets."""
    configure()
    for error in (TokenStoreBusyError("token store busy"), FileNotFoundError(2, "No such file", SECRET), OSError()):
        logging.getLogger("x").error("no", exc_info=error)
    assert [line["errors"] for line in lines(path)] == [
        [{"type": "TokenStoreBusyError", "message": "token store busy", "where": []}],
        [{"type": "FileNotFoundError", "message": "No such file", "where": []}],
        [{"type": "OSError", "where": []}],
    ]


def test_credentials_in_our_errors_are_masked(configure: Configure, path: Path) -> None:
    """An error's text can quote what a client or a file holds."""
    configure()
    error = TokenStoreBusyError(f"token store busy: Authorization: Bearer {SECRET}")
    logging.getLogger("x").error("no", exc_info=error)
    assert SECRET not in path.read_text()
    assert lines(path)[0]["errors"][0]["message"].startswith("token store busy: ")


def test_a_chain_of_exceptions_ends(configure: Configure, path: Path) -> None:
    """One that leads back to itself too; what `from None` hides stays hidden."""
    configure()
    one, two = RuntimeError(), OSError()
    one.__cause__, two.__cause__ = two, one
    logging.getLogger("x").error("loop", exc_info=one)
    hidden = RuntimeError()
    hidden.__context__, hidden.__suppress_context__ = one, True
    logging.getLogger("x").error("hidden", exc_info=hidden)
    assert [len(line["errors"]) for line in lines(path)] == [5, 1]


def test_libraries_log_to_the_same_file_but_never_their_debug_lines(configure: Configure, path: Path) -> None:
    """Those quote whole messages; handlers that a library brought are taken off."""
    own = logging.NullHandler()
    logging.getLogger("uvicorn").addHandler(own)
    configure("DEBUG")
    names = ("uvicorn", "uvicorn.error", "uvicorn.access", "mcp", "mcp.server.lowlevel", "zmq.auth", "asyncio")
    for name in names:
        logging.getLogger(name).debug("debug")
        logging.getLogger(name).info("info")
    logging.getLogger("nfcli.worker.jobs.executor").debug("debug")
    said = [(line["logger"], line["message"]) for line in lines(path)]
    assert said == [*((name, "info") for name in names), ("nfcli.worker.jobs.executor", "debug")]
    assert own not in logging.getLogger("uvicorn").handlers
    logging.getLogger("uvicorn").removeHandler(own)


@pytest.mark.parametrize(("level", "said"), [("warning", ["w", "e"]), ("ERROR", ["e"]), ("Info", ["i", "w", "e"])])
def test_lines_below_the_level_are_not_logged(configure: Configure, path: Path, level: str, said: list[str]) -> None:
    """Upper or lower case."""
    configure(level)
    log = logging.getLogger("nfcli.x")
    log.info("i")
    log.warning("w")
    log.error("e")
    assert [line["message"] for line in lines(path)] == said


def test_an_unknown_level_is_refused(path: Path) -> None:
    """On one line that names the levels; no file is made."""
    with pytest.raises(UsageError) as refused:
        configure_logging(path, "loud")
    assert str(refused.value) == "log level must be one of CRITICAL, ERROR, WARNING, INFO, DEBUG, got 'loud'"
    assert not path.exists()


def test_the_log_is_private_through_every_rotation(
    configure: Configure, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0600 whatever the umask, and no more files than are kept."""
    monkeypatch.setattr(logs, "MAX_LOG_FILE_BYTES", 500)
    umask = os.umask(0)
    try:
        configure()
        for number in range(40):
            logging.getLogger("x").info("line %d", number)
    finally:
        os.umask(umask)
    files = sorted(path.parent.glob("worker.jsonl*"))
    assert [file.name for file in files] == ["worker.jsonl", *(f"worker.jsonl.{number}" for number in (1, 2, 3))]
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}
    assert all(file.stat().st_size <= 500 for file in files)
    assert lines(path)[-1]["message"] == "line 39"


def test_a_log_open_to_others_is_refused(path: Path) -> None:
    """The former configuration stays."""
    before = logging.getLogger().handlers[:]
    path.touch()
    path.chmod(0o644)
    with pytest.raises(EnvironmentFolderError, match="chmod 600"):
        configure_logging(path, "INFO")
    assert logging.getLogger().handlers == before


def test_restoring_puts_the_former_configuration_back(path: Path) -> None:
    """Handlers, levels, propagation; and the file is closed."""
    loggers = [logging.getLogger(name) for name in ("", "uvicorn", "uvicorn.access", "mcp", "zmq")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    files = len(list(Path("/dev/fd").iterdir()))
    configure_logging(path, "DEBUG")()
    assert [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers] == before
    assert len(list(Path("/dev/fd").iterdir())) == files


def test_a_log_that_can_t_be_written_is_reported_once_and_stops_nothing(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default would print the call's arguments, secrets included."""
    configure()
    [handler] = logging.getLogger().handlers
    assert isinstance(handler, logging.FileHandler)
    handler.stream.close()
    handler.stream = Path("/dev/full").open("w")  # noqa: SIM115  the handler closes it
    for _ in range(3):
        logging.getLogger("x").error("Bearer %s", SECRET)
    said = f"nfcli: the log {handler.baseFilename} can't be written: No space left on device\n"
    assert capsys.readouterr().err == said


def test_a_line_whose_arguments_don_t_fit_is_kept(configure: Configure, path: Path) -> None:
    """The format is logged, the arguments aren't."""
    configure()
    too_few = "one %s too few: %s"
    logging.getLogger("x").error(too_few, SECRET)
    assert [line["message"] for line in lines(path)] == [f"{too_few} (arguments don't fit: TypeError)"]


def test_a_closed_stderr_stops_nothing(configure: Configure, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker outlives the terminal it was started from."""
    with open(os.devnull, "w") as closed:  # noqa: PTH123
        pass
    monkeypatch.setattr(sys, "stderr", closed)
    configure()
    logging.getLogger("x").error("fine")
    assert [line["message"] for line in lines(path)] == ["fine"]
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.FileHandler)
    handler.stream.close()
    logging.getLogger("x").error("lost")
