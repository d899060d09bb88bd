"""The types of the values an inventory holds: what each accepts, and how it is shown.

Values that come from the environment are text, so flags and numbers are accepted as text too.
"""

from __future__ import annotations

import ipaddress
import keyword
import math
import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from ..environment.paths import SOCKET_PATH_MAX_BYTES

PORT_MAX = 65_535
GUESSES_MAX = 1_000

_TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
_FALSE_WORDS = frozenset({"0", "false", "no", "off"})
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
# RFC 6749 section 3.3: printable ASCII but blank, double quote and backslash.
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_Z85_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_SECRET_KEY = re.compile(r"pass|secret|token|key|cred|auth|private|cookie|session", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\s*(?:bearer|basic|digest)\s+\S", re.IGNORECASE)
_URL_SECRET = re.compile(r"(?<=://)[^/@\s]+(?=@)")
REDACTED = "***"


@dataclass(frozen=True)
class Kind:
    """What the manual says of a field's type, and of its default where the default isn't a plain value."""

    text: str
    default: str | None = None


_NOTHING = object()


def kind_of(value: Any) -> str:
    """Return what a YAML value is, in a user's words and without its content."""
    if value is None:
        return "nothing"
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def shown(value: Any) -> str:
    """Return a refused value for an error message: short, in one line; what isn't a scalar by its kind only."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:59]}…")  # noqa: PLR2004  what fits a line
    return str(value)[:60] if isinstance(value, (int, float)) else kind_of(value)


def _refuse(expected: str, value: Any = _NOTHING) -> PydanticCustomError:
    """Return the error for a value that isn't what was `expected`; give `value` only where it can't be a secret."""
    text = expected if value is _NOTHING else f"{expected}, got {shown(value)}"
    return PydanticCustomError("inventory_value", "{text}", {"text": text})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _refuse("must be text (in quotes, where YAML would read it as something else)", value)
    return value


def _flag(value: Any) -> bool:
    word = value.strip().lower() if isinstance(value, str) else str(value).lower() if type(value) in (bool, int) else ""
    if word in _TRUE_WORDS:
        return True
    if word in _FALSE_WORDS:
        return False
    raise _refuse("must be true or false (also the words 1, yes, on, 0, no, off)", value)


def _yaml_flag(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return value is not False
    raise _refuse("must be true or false without quotes: NorFab takes everything but false for true", value)


def _port(value: Any) -> int:
    number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value) else value
    if type(number) is not int or not 0 <= number <= PORT_MAX:
        raise _refuse(f"must be a port number, 0 to {PORT_MAX}", value)
    return number


def _guess_count(value: Any) -> int:
    number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,4}", value) else value
    if number is None:
        return 0
    if type(number) is not int or not 0 <= number <= GUESSES_MAX:
        raise _refuse(f"must be a whole number, 0 (no limit) to {GUESSES_MAX}", value)
    return number


def _is_host(text: str) -> bool:
    """Whether `text` is an IP address (without brackets) or a host name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        name = text.removesuffix(".")
        return len(name) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in name.split("."))  # noqa: PLR2004  RFC 1035
    return True


def _bind_host(value: Any) -> str:
    host = _text(value).strip()
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if host and not _is_host(host):
        raise _refuse("must be an IP address or a host name, or empty for all interfaces", value)
    return host


def _split_port(text: str) -> tuple[str, str]:
    """Return host (brackets of an IPv6 address taken off) and port text of `host:port`; empty texts where missing."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return (host if ":" in host else "", rest.removeprefix(":") if rest.startswith(":") else "")
    host, _, port = text.rpartition(":")
    return (host if ":" not in host else "", port)


def _is_tcp(text: str, *, wildcards: bool) -> bool:
    host, port = _split_port(text.removeprefix("tcp://"))
    is_port = port.isascii() and port.isdigit() and int(port) <= PORT_MAX and (wildcards or int(port) > 0)
    return (is_port or (wildcards and port == "*")) and ((wildcards and host == "*") or (bool(host) and _is_host(host)))


def _endpoint(value: Any, *, wildcards: bool) -> str:
    text = _text(value)
    if text.startswith("ipc://"):
        path = text.removeprefix("ipc://")
        if not PurePosixPath(path).is_absolute() or path.endswith("/"):
            raise _refuse("must be ipc:// and an absolute path, or tcp://HOST:PORT", value)
        if len(os.fsencode(path)) > SOCKET_PATH_MAX_BYTES:
            raise _refuse(f"must have a path of at most {SOCKET_PATH_MAX_BYTES} bytes", value)
    elif not text.startswith("tcp://") or not _is_tcp(text, wildcards=wildcards):
        raise _refuse("must be tcp://HOST:PORT, or ipc:// and an absolute path", value)
    return text


def _bind_endpoint(value: Any) -> str:
    return _endpoint(value, wildcards=True)


def _connect_endpoint(value: Any) -> str:
    return _endpoint(value, wildcards=False)


def _curve_key(value: Any) -> str:
    if not isinstance(value, str) or not _Z85_KEY.fullmatch(value):
        raise _refuse("must be a CURVE public key, 40 Z85 characters in quotes")
    return value


def _http_url(value: Any) -> str:
    text = _text(value)
    expected = "must be a URL, http://… or https://…, without user, query or fragment"
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that are none
        is_url = False
    if not is_url or "@" in parts.netloc or set("?# \\") & set(text) or not text.isprintable():
        raise _refuse(expected)  # the value stays out: it may hold a password
    return text


def _scope(value: Any) -> str:
    if not _SCOPE.fullmatch(_text(value)):
        raise _refuse('must be a scope: printable ASCII without blanks, " and \\', value)
    return str(value)


def _module_name(value: Any) -> str:
    text = _text(value)
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in text.split(".")):
        raise _refuse("must be the dotted name of a Python module, as in package.module", value)
    return text


def _network_name(value: Any) -> str:
    """Accept what a Host header can be: `name`, `name:port`, `name:*`, IPv6 addresses in brackets."""
    text = _text(value)
    is_plain = _is_host(text.strip("[]") if text.startswith("[") and text.endswith("]") else text)
    host, port = _split_port(text)
    has_port = bool(host) and _is_host(host) and (port == "*" or (port.isascii() and port.isdigit()))
    if not text or (":" in text and not text.startswith("[") and not has_port) or not (is_plain or has_port):
        raise _refuse("must be NAME, NAME:PORT or NAME:*, an IPv6 address in brackets", value)
    return text


def _origin(value: Any) -> str:
    """Accept what an Origin header can be, RFC 6454: scheme, host, port; the port may be `*`."""
    text = _text(value)
    scheme, separator, rest = text.partition("://")
    try:
        _network_name(rest)
        is_origin = bool(separator) and re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) is not None
    except PydanticCustomError:
        is_origin = False
    if not is_origin:
        raise _refuse("must be SCHEME://NAME, SCHEME://NAME:PORT or SCHEME://NAME:*, without a path", value)
    return text


def _list(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _refuse("must be a list", value)
    return value


def _without_repeats(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value))


def _section(value: Any) -> Any:
    if not isinstance(value, dict):
        raise _refuse("must be a mapping", value)
    return value


Flag = Annotated[bool, BeforeValidator(_flag)]
YamlFlag = Annotated[bool, BeforeValidator(_yaml_flag)]
Port = Annotated[int, BeforeValidator(_port)]
GuessCount = Annotated[int, BeforeValidator(_guess_count)]
BindHost = Annotated[str, BeforeValidator(_bind_host)]
BindEndpoint = Annotated[str, BeforeValidator(_bind_endpoint)]
ConnectEndpoint = Annotated[str, BeforeValidator(_connect_endpoint)]
CurveKey = Annotated[str, BeforeValidator(_curve_key)]
HttpUrl = Annotated[str, BeforeValidator(_http_url)]
Section = Annotated[dict[str, Any], BeforeValidator(_section)]
Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_list)]
Scopes = Annotated[tuple[Annotated[str, BeforeValidator(_scope)], ...], BeforeValidator(_list)]
ModuleNames = Annotated[
    tuple[Annotated[str, BeforeValidator(_module_name)], ...], BeforeValidator(_list), AfterValidator(_without_repeats)
]
NetworkNames = Annotated[tuple[Annotated[str, BeforeValidator(_network_name)], ...], BeforeValidator(_list)]
Origins = Annotated[tuple[Annotated[str, BeforeValidator(_origin)], ...], BeforeValidator(_list)]


def is_loopback_host(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`: 127.0.0.0/8, ::1 or localhost."""
    if host.casefold().removesuffix(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def url_host(host: str) -> str:
    """Return how a bind host stands in a URL: all interfaces as 127.0.0.1, IPv6 addresses in brackets."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def redact(value: Any, key: str = "") -> Any:
    """Return `value` as JSON can show it, with `***` for what its key or its form says is a secret.

    Everything below a key that sounds like a secret counts as one, but for true, false and null.
    """
    is_secret = bool(_SECRET_KEY.search(key))
    if isinstance(value, dict):
        return {str(name): redact(item, key if is_secret else str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = list(value)
        if not is_secret and len(items) == 2 and isinstance(items[0], str):  # noqa: PLR2004  a header: name and value
            return [redact(items[0]), redact(items[1], items[0])]
        return [redact(item, key) for item in items]
    return _redact_scalar(value, is_secret=is_secret)


def _redact_scalar(value: Any, *, is_secret: bool) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if is_secret or isinstance(value, bytes):
        return REDACTED
    if isinstance(value, str):
        return REDACTED if _SECRET_VALUE.match(value) else _URL_SECRET.sub(REDACTED, value)
    is_json_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_json_number else str(value)
