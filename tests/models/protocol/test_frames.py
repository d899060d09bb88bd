"""Frames: captured ones parse and rebuild; invalid ones are refused, and the error does not repeat them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfcli.models.errors import ProtocolError
from nfcli.models.protocol.frames import (
    BROKER_HEADER,
    WORKER_HEADER,
    BrokerMessage,
    ClientMessage,
    Command,
    Signal,
    Status,
    WorkerJob,
    WorkerMessage,
    decode_data,
    decode_object,
    decode_target,
    encode_data,
    encode_target,
)

CAPTURED = Path(__file__).parent / "captured" / "nfp_frames.jsonl"
# Probes with commands that don't exist, and the reference broker's five-frame error for each.
REFUSED = 6

KINDS = {
    ("client", "broker", 7): ClientMessage,
    ("broker", "client", 7): BrokerMessage,
    ("broker", "client", 5): BrokerMessage,
    ("broker", "worker", 7): WorkerJob,
    ("broker", "worker", 4): Signal,
    ("worker", "broker", 8): WorkerMessage,
    ("worker", "broker", 4): Signal,
}

texts = st.text(min_size=1, max_size=32).filter(lambda text: text.isprintable())
uuids = st.uuids().map(lambda value: value.hex)


def captured() -> Iterator[tuple[type, list[bytes]]]:
    """Yield the kind of message and the frames of each captured line."""
    for line in CAPTURED.read_text().splitlines():
        record = json.loads(line)
        frames = [f["utf8"].encode() if "utf8" in f else bytes.fromhex(f["hex"]) for f in record["frames"]]
        yield KINDS[record["from"], record["to"], len(frames)], frames


def test_captured_frames_parse_and_rebuild_byte_for_byte() -> None:
    """Except the DISCONNECT of the reference, whose frames are exchanged."""
    refused, exchanged = 0, 0
    for kind, frames in captured():
        try:
            message = kind.parse(frames)
        except ProtocolError:
            refused += 1
            continue
        if kind is Signal and frames[3] == Command.DISCONNECT:
            exchanged += 1
            assert message == Signal(BROKER_HEADER, Command.DISCONNECT, "fastmcp")
        else:
            assert message.frames() == frames
    assert (refused, exchanged) == (REFUSED, 1)


@given(texts, texts, uuids, st.binary(max_size=64), st.sampled_from([Command.POST, Command.GET, Command.MMI]))
def test_client_messages_survive_the_wire(service: str, target: str, uuid: str, data: bytes, command: bytes) -> None:
    """Parsing is the inverse of building the frames."""
    message = ClientMessage(command, service, target.encode(), uuid, data)
    assert ClientMessage.parse(message.frames()) == message


@given(texts, uuids, st.sampled_from(list(Status)), st.binary(max_size=64))
def test_broker_messages_survive_the_wire(service: str, uuid: str, status: Status, data: bytes) -> None:
    """Parsing is the inverse of building the frames."""
    message = BrokerMessage(Command.RESPONSE, service, uuid, status, data)
    assert BrokerMessage.parse(message.frames()) == message


@given(st.binary(max_size=16), uuids, st.binary(max_size=64))
def test_worker_messages_survive_the_wire(client: bytes, uuid: str, data: bytes) -> None:
    """Parsing is the inverse of building the frames, for jobs and for their answers."""
    job = WorkerJob(Command.POST, client, uuid, data)
    answer = WorkerMessage(Command.RESPONSE, client, uuid, Status.DONE, data)
    assert (WorkerJob.parse(job.frames()), WorkerMessage.parse(answer.frames())) == (job, answer)


@given(st.one_of(st.sampled_from(["all", "any"]), st.lists(texts, min_size=1, max_size=4)))
def test_targets_survive_the_wire(workers: str | list[str]) -> None:
    """Decoding is the inverse of encoding, for `all`, `any` and lists of names."""
    assert decode_target(encode_target(workers)) == workers


@given(st.lists(st.binary(max_size=24), max_size=9), st.sampled_from(list(set(KINDS.values()))))
def test_garbage_is_refused_and_not_repeated(frames: list[bytes], kind: type) -> None:
    """The only error is ProtocolError, and its message doesn't contain the content."""
    refusals = []
    try:
        kind.parse(frames)
    except ProtocolError as error:
        refusals.append(str(error))
    assert all(text.isascii() and len(text) < 80 for text in refusals)


def test_ready_without_a_service_is_refused() -> None:
    """It crashes the reference's broker."""
    with pytest.raises(ProtocolError):
        Signal.parse([b"", WORKER_HEADER, Command.READY])


@pytest.mark.parametrize("data", [b"", b"{", b"NaN", b'{"a":-Infinity}', b"\xff", b"[" * 100_000])
def test_data_that_is_not_json_is_refused(data: bytes) -> None:
    """It is not taken for null."""
    with pytest.raises(ProtocolError, match=r"^the data is not JSON$"):
        decode_data(data)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"NaN", b'{"a":NaN}', b"\xff", b"[" * 100_000, b'"text"'])
def test_data_that_is_not_a_json_object_is_refused(data: bytes) -> None:
    """Strict JSON objects only: no NaN, no arrays, no depth that would overflow the stack."""
    with pytest.raises(ProtocolError):
        decode_object(data)


def test_a_message_without_a_uuid_is_refused() -> None:
    """All messages without one would count as the same job and get its result."""
    with pytest.raises(ProtocolError, match="the uuid is empty"):
        ClientMessage.parse(ClientMessage(Command.POST, "fastmcp", b"all", "", b"{}").frames())


@pytest.mark.parametrize(
    "target", [b"[", b"[1]", b'{"a":1}'.replace(b"{", b"["), b"\xff", b"x" * 300, b'["x"' + b" " * 70_000 + b"]"]
)
def test_invalid_targets_are_refused(target: bytes) -> None:
    """A target is text or a JSON list of texts, and bounded, since answers repeat it."""
    with pytest.raises(ProtocolError):
        decode_target(target)


def test_data_is_compact_and_keeps_unicode() -> None:
    """As the reference's serializer writes it."""
    assert encode_data({"task": "é", "args": []}) == '{"task":"é","args":[]}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_data(float("nan"))


def commands_of(kind: type, frames: list[bytes]) -> str:
    """Return the last digits of the commands that a kind of message may have."""
    accepted = []
    for high in (b"0", b"1", b"2"):
        for low in b"0123456789abcdef":
            try:
                kind.parse([*frames[:2], b"0x%s%c" % (high, low), *frames[3:]])  # type: ignore[attr-defined]
            except ProtocolError:
                continue
            accepted.append(f"{high.decode()}{low:c}")
    return " ".join(accepted)


def test_each_direction_has_its_commands() -> None:
    """As NorFab's broker has them: POST 04, RESPONSE 05, GET 06, DELETE 07, EVENT 08, STREAM 09, PUT 10, MMI 11."""
    text = b"text"
    assert commands_of(ClientMessage, [b"", b"NFPC01", b"", *[text] * 4]) == "04 06 07 10 11"
    assert commands_of(BrokerMessage, [b"", b"NFPB01", b"", *[text] * 4]) == "05 08 09 11"
    assert commands_of(WorkerJob, [b"", b"NFPB01", b"", *[text] * 4]) == "04 06 10"
    assert commands_of(WorkerMessage, [b"", b"NFPW01", b"", *[text] * 5]) == "05 08 09"
    assert commands_of(Signal, [b"", b"NFPW01", b"", text]) == "01 02 03"
    assert commands_of(Signal, [b"", b"NFPB01", b"", text]) == "01 02 03"


@pytest.mark.parametrize(
    ("kind", "frames", "sizes"),
    [
        (ClientMessage, [b"", b"NFPC01", b"0x04", b"", b"all", b"", b"{}"], {3: 256, 5: 128}),
        (BrokerMessage, [b"", b"NFPB01", b"0x05", b"", b"", b"", b"{}"], {3: 256, 4: 128, 5: 8}),
        (WorkerJob, [b"", b"NFPB01", b"0x04", b"c", b"", b"", b"{}"], {5: 128}),
        (WorkerMessage, [b"", b"NFPW01", b"0x05", b"c", b"", b"", b"", b"{}"], {5: 128, 6: 8}),
        (Signal, [b"", b"NFPW01", b"0x01", b""], {3: 256}),
    ],
)
def test_texts_have_a_longest_length(kind: type, frames: list[bytes], sizes: dict[int, int]) -> None:
    """One byte more is refused, and so is what is no UTF-8."""
    full = [b"x" * sizes[index] if index in sizes else frame for index, frame in enumerate(frames)]
    assert kind.parse(full).frames() == full  # type: ignore[attr-defined]
    for index, size in sizes.items():
        for wrong, reason in ((b"x" * (size + 1), f"a text frame is longer than {size} bytes"), (b"\xff", "not UTF-8")):
            with pytest.raises(ProtocolError, match=reason):
                kind.parse([*full[:index], wrong, *full[index + 1 :]])  # type: ignore[attr-defined]


def test_targets_have_a_longest_length() -> None:
    """A name that of a service, a list of names 64 KiB."""
    assert decode_target(b"x" * 256) == "x" * 256
    names = ["x" * 62] * 1_008
    assert (len(encode_target(names)), decode_target(encode_target(names))) == (65_521, names)
    longer = encode_target([*names, "x" * 12])
    assert len(longer) == 65_536
    assert decode_target(longer) == [*names, "x" * 12]
    for target, size in ((b"x" * 257, 256), (longer[:-1] + b" ]", 65_536)):
        with pytest.raises(ProtocolError, match=f"is longer than {size} bytes"):
            decode_target(target)


@pytest.mark.parametrize(
    ("status", "is_error"), [("400", True), ("404", True), ("500", True), ("200", False), ("300", False), ("", False)]
)
def test_errors_are_statuses_of_400_and_more(status: str, *, is_error: bool) -> None:
    """Those of another worker's version, too."""
    assert Status.is_error(status) is is_error
