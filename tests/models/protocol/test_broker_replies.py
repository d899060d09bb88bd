"""The meaning of a broker's messages: captured ones of a real broker, and arbitrary ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfcli.models.errors import ProtocolError
from nfcli.models.protocol.broker_replies import (
    BrokerReply,
    Dispatched,
    Finished,
    JobState,
    ManagementReply,
    WorkerReply,
    management_request,
    parse_reply,
    worker_rows,
)
from nfcli.models.protocol.frames import BrokerMessage, Command, encode_data

CAPTURED = Path(__file__).parent / "captured" / "nfp_frames.jsonl"
COMMANDS = st.sampled_from([Command.RESPONSE, Command.EVENT, Command.STREAM, Command.MMI])
STATUSES = st.sampled_from(["102", "200", "201", "202", "300", "400", "404", "500", "", "x"])
KEYS = st.sampled_from(["worker", "workers", "target", "error", "errors", "status", "event_type", "message", "w1"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["progress", "result_ready"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


def parse(status: str, data: Any, command: bytes = Command.RESPONSE) -> BrokerReply | None:
    """Return the reply in a message with this status and data."""
    return parse_reply(BrokerMessage(command, "s", "u", status, encode_data(data)))


def captured_messages() -> list[BrokerMessage]:
    """Return the captured messages of a real broker to its clients."""
    found = []
    for line in CAPTURED.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if (record["from"], record["to"]) == ("broker", "client"):
            parts = record["frames"]
            frames = [part["utf8"].encode() if "utf8" in part else bytes.fromhex(part["hex"]) for part in parts]
            if len(frames) == 7:
                found.append(BrokerMessage.parse(frames))
    return found


def test_messages_of_a_real_broker_have_a_meaning() -> None:
    """Except the RESPONSE copies of its own answers, which name no worker, and the events about inputs."""
    kinds: Counter[str] = Counter()
    messages = captured_messages()
    replies = [parse_reply(message) for message in messages]
    for message, reply in zip(messages, replies, strict=True):
        kinds[reply.state.name if isinstance(reply, WorkerReply) else type(reply).__name__] += 1
        if reply is None:
            assert message.service.endswith(".service.broker") or b'"input_' in message.data
    assert set(kinds) >= {"Dispatched", "Finished", "RUNNING", "READY", "PROGRESS", "UNKNOWN", "ManagementReply"}
    assert sum(isinstance(reply, Dispatched) and reply.error is not None for reply in replies) > 0


@pytest.mark.parametrize(
    ("status", "data", "expected"),
    [
        ("202", {"workers": ["w1", 7], "target": '["w1","w2"]'}, Dispatched(("w1",), ("w1", "w2"))),
        ("202", {"workers": ["w1"], "target": "w1"}, Dispatched(("w1",), ("w1",))),
        ("202", {"workers": ["w1"], "target": "[1"}, Dispatched(("w1",), None)),
        ("202", {"workers": "w1"}, None),
        ("200", {"w1": {"result": 1}, "w2": 5}, Finished({"w1": {"result": 1}, "w2": 5})),
        ("200", ["w1"], None),
        ("201", {"worker": "w1"}, WorkerReply("w1", JobState.ACCEPTED)),
        ("300", {"worker": "w1", "status": "STARTED"}, WorkerReply("w1", JobState.RUNNING, "STARTED")),
        ("102", {"worker": "w1", "status": "WAITING"}, WorkerReply("w1", JobState.RUNNING, "WAITING")),
        ("300", {"worker": ["w1"]}, None),
        ("404", {"worker": "w1", "status": "JOB NOT FOUND"}, WorkerReply("w1", JobState.UNKNOWN, "JOB NOT FOUND")),
        ("500", {"worker": "w1", "status": "UNKNOWN STATUS"}, WorkerReply("w1", JobState.FAILED, "UNKNOWN STATUS")),
        (
            "400",
            {"workers": None, "target": "w9", "status": "FAILED", "errors": ["no w9"]},
            Dispatched((), ("w9",), "no w9"),
        ),
        ("400", {"error": "no", "errors": ["other"]}, Dispatched((), None, "no")),
        ("400", {"target": "x", "errors": 7}, Dispatched((), ("x",), "status 400")),
        ("499", {"target": "x", "error": "y" * 5_000}, Dispatched((), ("x",), "y" * 2_000)),
    ],
)
def test_the_meaning_of_a_response(status: str, data: Any, expected: BrokerReply | None) -> None:
    """Names that aren't text and data of another type have none."""
    assert parse(status, data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            {"worker": "w1", "event_type": "result_ready", "message": "completed"},
            WorkerReply("w1", JobState.READY, "completed"),
        ),
        (
            {"worker": "w1", "event_type": "progress", "message": "3 of 10"},
            WorkerReply("w1", JobState.PROGRESS, "3 of 10"),
        ),
        ({"worker": "w1", "event_type": "progress", "message": 3}, WorkerReply("w1", JobState.PROGRESS, "")),
        ({"worker": "w1", "event_type": "input_request"}, WorkerReply("w1", JobState.PROGRESS, "")),
        ({"worker": "w1", "event_type": ["progress"]}, None),
        ({"event_type": "result_ready"}, None),
    ],
)
def test_the_meaning_of_an_event(data: Any, expected: BrokerReply | None) -> None:
    """Only one kind says that the result can be fetched; the data are kept as they are."""
    reply = parse("200", data, Command.EVENT)
    assert reply == expected
    assert not isinstance(reply, WorkerReply) or reply.event == data


@given(COMMANDS, STATUSES, VALUES | st.binary(max_size=8))
def test_no_message_raises(command: bytes, status: str, data: Any) -> None:
    """A message of the wrong shape must not end the thread that parses it."""
    payload = data if isinstance(data, bytes) else encode_data(data)
    reply = parse_reply(BrokerMessage(command, "s", "u", status, payload))
    assert reply is None or isinstance(reply, BrokerReply)


def test_a_management_request_has_one_answer() -> None:
    """Of the broker's two messages the RESPONSE has no meaning, whatever its data."""
    message = management_request("u1", "show_workers", service="mmi.service.broker", status="alive")
    assert (message.command, message.target, message.uuid) == (Command.MMI, b"all", "u1")
    assert message.data == b'{"task":"show_workers","kwargs":{"status":"alive"},"args":[]}'
    rows = [{"name": "w1", "service": "s"}]
    assert parse("200", rows, Command.MMI) == ManagementReply(rows)
    assert parse("200", rows) is None


@pytest.mark.parametrize("value", [None, "Unsupported task 'x'", [{"name": "", "service": "", "status": ""}], [7], {}])
def test_a_broker_without_workers_has_no_rows(value: Any) -> None:
    """The broker of norfab 0.25.0 answers with one row of empty strings."""
    assert worker_rows(value) == []


def test_rows_are_text_sorted_by_name() -> None:
    """Values of any type are converted."""
    rows = [{"name": "w2", "service": "s", "holdtime": 13.5}, {"name": "w1", "service": "t"}, {"name": "w3"}]
    assert worker_rows(rows) == [
        {"name": "w1", "service": "t"},
        {"name": "w2", "service": "s", "holdtime": "13.5"},
    ]


def test_a_message_that_is_not_json_has_no_meaning() -> None:
    """But it is NFP; frames that aren't are an error."""
    assert parse_reply(BrokerMessage(Command.RESPONSE, "s", "u", "200", b"{not json")) is None
    with pytest.raises(ProtocolError):
        BrokerMessage.parse([b"", b"NFPB01"])
