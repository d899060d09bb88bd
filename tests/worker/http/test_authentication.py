"""Several authentication schemes in one policy."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Message, Receive, Scope, Send

from nfcli.worker.http.policy import AuthScheme, Caller
from nfcli.worker.http.responses import challenge_response
from support.mcp.middleware_bench import MiddlewareBench, run


def read_other(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the credentials of the scheme `Other`."""
    scheme, _, credentials = headers.get(b"authorization", b"").decode().partition(" ")
    return credentials if scheme == "Other" else None


OTHER = AuthScheme(
    "Other",
    'Other realm="test"',
    challenge_response(401, "wrong", 'Other error="wrong"'),
    challenge_response(403, "scope", "Other"),
    read_other,
    lambda credentials: Caller("t", frozenset(), {}) if credentials == "secret" else None,
)


async def respond(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Send an empty response."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def challenges(messages: list[Message]) -> list[bytes]:
    """Return the values of WWW-Authenticate."""
    return [value for name, value in messages[0]["headers"] if name == b"www-authenticate"]


def test_each_scheme_authenticates_its_own_credentials() -> None:
    """A response to wrong credentials has the challenge of their scheme."""

    async def test() -> None:
        async with bench.open():
            for authorization in ("Bearer t", "Other secret"):
                assert (await bench.messages(authorization))[0]["status"] == 200
            assert challenges(await bench.messages("Bearer secret")) == [b'Bearer error="invalid_token"']
            assert challenges(await bench.messages("Other t")) == [b'Other error="wrong"']

    bench = MiddlewareBench(respond, schemes=[OTHER])
    run(test)


def test_request_without_credentials_gets_the_challenges_of_all_schemes() -> None:
    """RFC 9110 section 11.6.1; credentials of an unknown scheme count as none."""

    async def test() -> None:
        async with bench.open():
            for authorization in (None, "Digest x"):
                messages = await bench.messages(authorization)
                assert messages[0]["status"] == 401
                assert challenges(messages) == [b"Bearer", b'Other realm="test"']
                assert b"send Bearer or Other credentials" in messages[1]["body"]

    bench = MiddlewareBench(respond, schemes=[OTHER])
    run(test)


def test_request_ends_with_the_token_of_any_scheme() -> None:
    """Its response is the scheme's own."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        bench.live.clear()
        await respond(scope, receive, send)

    async def test() -> None:
        async with bench.open():
            assert challenges(await bench.messages("Other secret")) == [b'Other error="wrong"']

    bench = MiddlewareBench(app, schemes=[OTHER])
    run(test)
