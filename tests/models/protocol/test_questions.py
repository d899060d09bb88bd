"""Questions of a task and their answers: what is read, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nfcli.models.errors import ProtocolError, TaskError
from nfcli.models.protocol.jobs import JobEvent
from nfcli.models.protocol.questions import InputAnswer, InputRequest

ANSWER = {"input_id": "q1", "value": True, "cancel": False, "metadata": {}}


def _data(**changes: object) -> bytes:
    return json.dumps({**ANSWER, **changes}).encode()


def test_an_answer_in_the_shape_of_nfp_is_read() -> None:
    """The data of a PUT, with all of its keys and with the one that it needs."""
    answer = InputAnswer.parse(_data())
    assert (answer.input_id, answer.value, answer.cancel) == ("q1", True, False)
    assert InputAnswer.parse(b'{"input_id":"q2"}').value is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b'{"offset":4096}',
        _data(input_id=1),
        _data(cancel="yes"),
        _data(metadata=[]),
        _data(input_id="q" * 129),
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    """Other data: no JSON, another shape, other types."""
    with pytest.raises(ProtocolError):
        InputAnswer.parse(data)


@pytest.mark.parametrize(
    ("default", "value", "read"),
    [
        (False, True, True),
        (True, False, False),
        (3, 5, 5),
        (3, " 12 ", 12),
        (1.5, 2, 2.0),
        (1.5, "2.5", 2.5),
        ("core", "edge", "edge"),
        (None, "anything", "anything"),
    ],
)
def test_an_answer_is_read_by_the_type_of_the_default(default: Any, value: Any, read: Any) -> None:
    """Numbers may come as the text that somebody typed."""
    found = InputRequest(question="?", default=default).read(value)
    assert (found, type(found)) == (read, type(read))


@pytest.mark.parametrize(
    ("default", "value"),
    [
        (False, "yes"),
        (False, 1),
        (True, None),
        (3, True),
        (3, 2.5),
        (3, "three"),
        (3, "9" * 41),
        (1.5, "nan"),
        (1.5, True),
        (1.5, [1]),
        ("core", 5),
        (None, None),
    ],
)
def test_an_answer_of_another_kind_is_refused(default: Any, value: Any) -> None:
    """The task never gets a value of another type."""
    with pytest.raises(TaskError, match="the answer must be"):
        InputRequest(question="?", default=default).read(value)


@pytest.mark.parametrize(("default", "counts"), [(True, False), (False, False), (7, 7), ("core", "core"), (None, None)])
def test_no_answer_is_no_or_the_default(default: Any, counts: Any) -> None:
    """Silence never says yes."""
    assert InputRequest(question="?", default=default).without_answer is counts


def test_questions_have_ids_of_their_own() -> None:
    """An answer can't be taken for that to another question."""
    assert len({InputRequest(question="?").id for _ in range(50)}) == 50


def test_an_event_has_no_empty_keys_and_keeps_the_nulls_of_a_question() -> None:
    """As NorFab's clients expect it."""
    fields = {"worker": "w1", "service": "s", "uuid": "u", "event_type": "progress", "message": "m", "task": "t"}
    plain = json.loads(JobEvent(**fields, status="running").encode())
    assert {"extras", "timeout"}.isdisjoint(plain)
    asked = InputRequest(question="Which?", default=None).model_dump()
    event = JobEvent(**fields, status="waiting_client_input", timeout=5, extras={"input_request": asked})
    sent = json.loads(event.encode())
    assert sent["extras"]["input_request"] == asked
    assert sent["timeout"] == 5
