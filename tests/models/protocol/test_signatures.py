"""Signatures of jobs: what they cover, to the byte."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfcli.models.errors import ProtocolError, UsageError
from nfcli.models.protocol.jobs import JobRequest, encode_request
from nfcli.models.protocol.signatures import JobSigner, Statement
from nfcli.models.signing_keys import SigningKey, is_signature

CLIENT = "c" * 40
NOW = 1_780_000_000.25
KEY, OTHER_KEY = SigningKey(b"one"), SigningKey(b"another")
NAMES = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(NAMES, each, max_size=3),
    max_leaves=8,
)


def signed(task: str = "bearer_token_store", key: SigningKey = KEY, **kwargs: Any) -> bytes:
    """Return a signed request of job `u1` for worker w1."""
    request = encode_request(task, kwargs or {"username": "ann", "token": "t1"}, timeout=60)
    return JobSigner(CLIENT, key, lambda: NOW).sign(request, uuid="u1", service="fastmcp", workers=["w1"])


def is_valid(data: bytes) -> bool:
    """Whether the request that a worker reads has a valid signature by `KEY`."""
    proof = JobRequest.parse(data).proof
    return proof is not None and proof.is_by(KEY.public)


def test_signed_request_is_norfabs_with_two_more_keys() -> None:
    """Its own keys come first, and mean what they meant."""
    value = json.loads(signed())
    assert list(value)[:4] == ["task", "kwargs", "args", "timeout"]
    assert list(value)[-2:] == ["signed", "signature"]
    statement = {"client": CLIENT, "time": 1_780_000_000_250, "uuid": "u1", "service": "fastmcp", "workers": ["w1"]}
    assert value["signed"] == statement
    assert Statement.model_validate(value["signed"]).time == 1_780_000_000_250
    assert JobRequest.parse(signed()).kwargs == {"username": "ann", "token": "t1"}


@given(task=NAMES, kwargs=st.dictionaries(NAMES, VALUES, max_size=4))
def test_every_request_keeps_its_signature(task: str, kwargs: dict[str, Any]) -> None:
    """Floats, big numbers and any Unicode included: nothing is brought into another form."""
    request = encode_request(task, kwargs, timeout=60)
    data = JobSigner(CLIENT, KEY, lambda: NOW).sign(request, uuid="u1", service="fastmcp", workers=["w1"])
    assert is_valid(data)
    assert JobRequest.parse(data).kwargs == kwargs


@pytest.mark.parametrize("position", range(0, len(signed()), 3))
def test_no_byte_can_be_changed(position: int) -> None:
    """What is still JSON has no valid signature."""
    data = bytearray(signed())
    data[position] ^= 1
    with contextlib.suppress(ProtocolError):
        assert not is_valid(bytes(data))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"token":"t1"', b'"token":"t2"'),
        (b'"token":"t1"', b'"token":"t1","token":"t2"'),
        (b'"kwargs":{', b'"kwargs":{"expire":1e2,'),
        (b'"timeout":60', b'"timeout":60.0'),
        (b'"t1"', b'"\\u0074\\u0031"'),
        (b'"ann"', b'"a\\u006en"'),
        (b'{"task"', b'{ "task"'),
        (b'{"task":', b'{"task":"bearer_token_delete","task":'),
        (b',"signed":', b',"task":"bearer_token_delete","signed":'),
        (b'"workers":["w1"]', b'"workers":["w1","w2"]'),
        (b'"uuid":"u1"', b'"uuid":"u2"'),
        (b'"service":"fastmcp"', b'"service":"all"'),
        (b'"time":1780000000250', b'"time":1780000000251'),
        (b',"signature":"', b',"kwargs":{"username":"eve","token":"t2"},"signature":"'),
        (b',"signed":', b',"signed":{},"signed":'),
    ],
)
def test_other_spellings_of_the_same_request_are_not_signed(old: bytes, new: bytes) -> None:
    """Nor are repeated keys, of which a parser takes the last."""
    data = signed()
    assert data.count(old) >= 1
    assert is_valid(data)
    assert not is_valid(data.replace(old, new, 1))


@pytest.mark.parametrize("suffix", [b" ", b"\n", b',"kwargs":{"username":"eve"}}', b',"signature":"00"}'])
def test_nothing_can_be_added_behind_the_signature(suffix: bytes) -> None:
    """The signature is the last thing in a request, or it isn't one."""
    data = signed()
    changed = data + suffix if suffix.isspace() else data.removesuffix(b"}") + suffix
    assert not is_valid(changed)


def test_signature_in_an_argument_does_not_count() -> None:
    """Only the end of the request counts."""
    tail = f',"signature":"{"0" * 128}"}}'
    assert JobRequest.parse(encode_request("echo", {"x": tail}, timeout=60)).proof is None
    assert JobRequest.parse(b'{"task":"echo","proof":1}').proof is None


def test_signature_of_another_key_is_not_valid() -> None:
    """Neither of another key nor of no key at all."""
    proof = JobRequest.parse(signed(key=OTHER_KEY)).proof
    assert proof is not None
    assert proof.is_by(OTHER_KEY.public)
    assert not proof.is_by(KEY.public)
    assert not proof.is_by("00" * 32)
    assert not proof.is_by("zz")


def test_signature_of_the_same_bytes_for_another_purpose_is_not_valid() -> None:
    """What is signed begins with a line that names the purpose."""
    data = signed()
    bare = data[: data.rindex(b',"signature"')]
    signature = KEY.sign(bare)
    assert is_signature(KEY.public, bare, signature)
    assert not is_valid(bare + b',"signature":"%b"}' % signature.hex().encode())


@pytest.mark.parametrize("where", ["uuid", "service", "workers"])
def test_names_that_are_no_unicode_are_refused(where: str) -> None:
    """JSON could not hold them."""
    names: dict[str, Any] = {"uuid": "u1", "service": "s", "workers": ["w1"]}
    names[where] = ["\ud800"] if where == "workers" else "\ud800"
    with pytest.raises(UsageError, match="must be valid Unicode"):
        JobSigner(CLIENT, KEY, lambda: NOW).sign(b'{"task":"echo"}', **names)


def test_signing_key_follows_from_the_curve_key() -> None:
    """The same one each time, and another one for another key."""
    assert SigningKey(b"one").public == KEY.public != OTHER_KEY.public
