"""Parts of invalid HTTP requests."""

from __future__ import annotations

from typing import Any

from attacks.victim import GOOD_TOKEN, MARK

WRONG_TOKEN = f"{MARK}-wrong"
METADATA = b"/.well-known/oauth-protected-resource"
DOCUMENTS = (b"/health", METADATA)
MAX_HEAD_BYTES, MAX_BODY_BYTES = 32 * 1024, 256 * 1024
GOOD = b"Bearer " + GOOD_TOKEN.encode()

ERAS = (b"2025-11-25", b"2025-06-18", b"2026-07-28")
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "attack", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_CLIENT = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "attack", "version": "1"}}
_CALL = {"name": "service_fastmcp__task_get_tools", "arguments": {"brief": True, "name": "*"}}
MESSAGES: tuple[tuple[str, dict[str, Any]], ...] = (
    *(
        ("initialize", _CLIENT),
        ("notifications/initialized", {}),
        ("ping", {}),
        ("tools/list", {}),
        ("tools/call", _CALL),
    ),
    *(
        ("tools/call", {"name": "nosuch", "arguments": {}}),
        ("tools/call", {"name": "bearer_token_list"}),
        ("nosuch", {}),
    ),
    *(
        ("resources/list", {}),
        ("prompts/get", {"name": "x"}),
        ("logging/setLevel", {"level": "debug"}),
        ("tasks/list", {}),
    ),
    *(("completion/complete", {"ref": {}, "argument": {}}), ("notifications/cancelled", {"requestId": 1}), ("", {})),
    *(("subscriptions/listen", {}), ("server/discover", {}), ("sampling/createMessage", {}), ("roots/list", {})),
)
METHODS = (
    *(b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"PATCH", b"PROPFIND", b"M-SEARCH", b"PURGE", b"LINK"),
    *(b"post", b"Post", b"POST\t", b"PO ST", b"", b"X" * 300, b"CONNECT", b"SOURCE", b"QUERY", b"GE\0T", b"\xffOST"),
)
TARGETS = (
    *(
        b"/",
        b"//mcp",
        b"/mcp//",
        b"/mcp;x",
        b"/mcp?access_token=%s" % GOOD_TOKEN.encode(),
        b"/mcp#x",
        b"/MCP",
        b"/mcp.",
    ),
    *(b"/mcp/../mcp", b"/./mcp", b"/mcp/..", b"/%6dcp", b"/mcp%00", b"/mcp%2f", b"/%2e%2e/mcp", b"/mcp%", b"/mcp%zz"),
    *(
        b"*",
        b"http://127.0.0.1/mcp",
        b"http://evil.example/mcp",
        b"https://x/health",
        b"127.0.0.1:80",
        b"mcp",
        b"\\mcp",
    ),
    *(
        b"/mcp\xff",
        b"/mcp\x00",
        b"/mcp\t",
        b"/" + b"a" * 9_000,
        b"/health",
        b"/health?x",
        b"/health/",
        b"/health/../mcp",
    ),
    *(
        b"/register",
        b"/authorize",
        b"/token",
        b"/sse",
        b"/.well-known/openid-configuration",
        METADATA,
        METADATA + b"/mcp",
    ),
    *(
        b"/.env",
        b"/..%2f..%2fetc/passwd",
        b"/mcp?" + b"a=b&" * 2_000,
        b"///",
        b"?",
        b"#",
        b"/mcp/%c0%ae",
        b"/\xe2\x80\xae",
    ),
    *(b"http://", b"http:///mcp", b"http://user:pass@127.0.0.1/mcp", b"//evil.example/mcp", b"/mcp/mcp", b"/docs"),
)
VERSIONS = (
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/1.2",
    b"HTTP/1.1.1",
    b"http/1.1",
    b"HTTP/11",
    b"",
    b"ICY",
    b"x",
)
HOSTS = (
    *(
        b"",
        b"evil.example",
        b"127.0.0.1.",
        b"127.0.0.1:",
        b"127.0.0.1:99999999",
        b"localhost@evil.example",
        b"0",
        b"[::1",
    ),
    *(
        b"127.0.0.1, evil.example",
        b"127.0.0.1/mcp",
        b"LOCALHOST",
        b"\xff",
        b"a" * 5_000,
        b"127.1",
        b"2130706433",
        b"::1",
    ),
)
ORIGINS = (
    b"null",
    b"",
    b"http://evil.example",
    b"http://127.0.0.1.evil.example",
    b"file://",
    b"*",
    b"\xff",
    b"a" * 5_000,
)
AUTHORIZATIONS = (
    *(
        b"",
        b"Bearer",
        b"Bearer ",
        b"bearer",
        b"Basic " + GOOD_TOKEN.encode(),
        b"Digest x",
        GOOD_TOKEN.encode(),
        b"BearerX",
    ),
    *(b"Bearer\t" + GOOD_TOKEN.encode(), GOOD + b",", GOOD + b" x", GOOD + b"\t", GOOD + b"\0", GOOD + b"%20"),
    *(GOOD + b", " + GOOD, b"Bearer " + GOOD, b"Token " + GOOD_TOKEN.encode(), b"Bearer=" + GOOD_TOKEN.encode()),
    *(b'Bearer "' + GOOD_TOKEN.encode() + b'"', b"Bearer " + GOOD_TOKEN.encode().swapcase(), GOOD[:-1], GOOD + b"x"),
    *(
        b"Bearer \xe9\xff",
        b"Bearer " + b"a" * 2_030,
        b"Bearer " + b"a" * 8_192,
        b"Bearer *",
        b"Bearer ' OR 1=1--",
        GOOD,
    ),
    *(
        b"Bearer bearer_token::" + GOOD_TOKEN.encode(),
        b"Bearer " + WRONG_TOKEN.encode(),
        b"bearer " + GOOD_TOKEN.encode(),
    ),
)
LENGTHS = (
    b"-1",
    b"+5",
    b"0x5",
    b"5, 5",
    b"5 5",
    b"",
    b"1e3",
    b"99999999999999999999",
    b"0" * 5_000 + b"5",
    b"5;",
    b"\xb2",
)
CODINGS = (b"chunked", b"Chunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"xchunked", b"chunked\0", b"")
CHUNKED = (
    *(
        b"5\r\nhello\r\n0\r\n\r\n",
        b"zz\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5;x=y\r\nhello\r\n0\r\n\r\n",
    ),
    *(
        b"FFFFFFFFFFFFFFFFFF\r\nx",
        b"5\nhello\n0\n\n",
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"0\r\nHost: evil\r\n\r\n",
        b"0\r\n\r\n",
    ),
    *(b"0" * 3_000 + b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\nAuthorization: " + GOOD + b"\r\n\r\n", b"\r\n"),
)
TRAILERS = (b"", b"Authorization: " + GOOD + b"\r\n", b"Host: evil\r\n", b"Content-Length: 5\r\n", b"X\0: y\r\n")
OTHER_HEADERS = (
    *(b"Content-Type: text/plain", b"Content-Type: ", b"Content-Type: application/json; charset=\xff", b"Accept: */*"),
    *(
        b"Accept: ",
        b"Accept: text/html",
        b"Accept: " + b"a/b," * 1_000,
        b"Mcp-Session-Id: x",
        b"Mcp-Session-Id: \xff" * 2,
    ),
    *(b"MCP-Protocol-Version: 1999-01-01", b"MCP-Protocol-Version: ", b"MCP-Protocol-Version: \xff", b"Mcp-Method: x"),
    *(
        b"Mcp-Name: \xff",
        b"Last-Event-ID: 1",
        b"Expect: 100-continue",
        b"Expect: x",
        b"Connection: close",
        b"Connection: ",
    ),
    *(
        b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk",
        b"TE: trailers",
        b"Trailer: x",
    ),
    *(
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==",
        b": x",
        b":",
    ),
    *(b"X-Forwarded-For: 127.0.0.1", b"X-Forwarded-Host: evil.example", b"X-HTTP-Method-Override: GET", b"Cookie: a=b"),
    *(
        b" folded: x",
        b"X: a\r\n b",
        b"X\t: y",
        b"X : y",
        b"X\0: y",
        b"X: \0",
        b"no colon",
        b"X: " + b"y" * 20_000,
        b"\xff: x",
    ),
    *(
        b"\r\n".join(b"X-%d: y" % number for number in range(400)),
        b"Content-Encoding: gzip",
        b"Range: bytes=0-1",
        b"Via: x",
    ),
    *(
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Host: evil.example",
        b"Origin: null",
        b"Authorization: " + GOOD,
    ),
)
BODIES = (
    *(
        b"",
        b"{}",
        b"[]",
        b"null",
        b"x",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"[" * 20_000,
        b'{"jsonrpc":"2.0"}',
        b"NaN",
        b"\0" * 9,
    ),
    *(
        b"access_token=" + GOOD_TOKEN.encode(),
        b'{"access_token":"%s"}' % GOOD_TOKEN.encode(),
        b"x" * (MAX_BODY_BYTES + 1),
    ),
    *(
        b"[" + b"{}," * 50_000 + b"{}]",
        b'{"id":' + b"9" * 5_000 + b"}",
        b'{"id":' * 5_000,
        b'"\\ud800"',
        b'{"\\ud800":1}',
    ),
)
PREFACES = (
    *(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\x9a" * 32,
    ),
    *(
        b"GET /mcp\r\n\r\n",
        b"GET /health\n\n",
        b"\r\n\r\n\r\n",
        b"\0" * 100,
        b"SSH-2.0-x\r\n",
        b"\xff\0\0\0\0\0\0\0\x01\x7f",
    ),
    *(b"GET / HTTP/1.1\n\n", b"POST /mcp HTTP/1.1\rHost: x\r\r", b"*1\r\n$4\r\nPING\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
)
