"""Types of the values in an inventory: what each accepts, and its error messages.

Environment variables hold text, so flags and numbers are accepted as text too.
"""

from __future__ import annotations

import ipaddress
import keyword
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from ..environment.known_workers import MAX_NAME_CHARACTERS, MAX_WORKERS
from ..environment.paths import MAX_SOCKET_PATH_BYTES
from ..fields import Z85_KEY

MAX_COUNT = 1_000_000
MAX_PORT = 65_535
MAX_WRONG_TOKENS = 1_000

_TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
_FALSE_WORDS = frozenset({"0", "false", "no", "off"})
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
# RFC 6749 section 3.3: printable ASCII but blank, double quote and backslash.
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


@dataclass(frozen=True)
class Kind:
    """A field's type in the words of the manual, and its default there if that isn't a plain value."""

    text: str
    default: str | None = None


def kind_of(value: Any) -> str:
    """Return the type of a YAML value in a user's words, without its content; of `true` and `false` the value."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {dict: "a mapping", list: "a list", str: "text", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def summarize(value: Any) -> str:
    """Return a refused value for an error message, short and on one line; of lists and mappings only the type."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:59]}…")  # noqa: PLR2004  fits a line
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value)[:60] if is_number else kind_of(value)


def refusal(text: str) -> PydanticCustomError:
    """Return the error for a value that is not valid."""
    return PydanticCustomError("inventory_value", "{text}", {"text": text})


def invalid_value(expected: str, value: Any) -> PydanticCustomError:
    """Return the error for a value that isn't as `expected`, for values that can't be secrets."""
    return refusal(f"{expected}, got {summarize(value)}")


def parse_text(value: Any) -> str:
    """Return a value that must be text."""
    if not isinstance(value, str):
        raise invalid_value("must be text (in quotes, where YAML would read it as something else)", value)
    return value


def _parse_folder(value: Any) -> str:
    text = parse_text(value)
    if not text or "\0" in text:
        raise invalid_value("must be the path of a folder", value)
    return text


def _parse_flag(value: Any) -> bool:
    word = value.strip().lower() if isinstance(value, str) else str(value).lower() if type(value) in (bool, int) else ""
    if word in _TRUE_WORDS:
        return True
    if word in _FALSE_WORDS:
        return False
    raise invalid_value("must be true or false (also the words 1, yes, on, 0, no, off)", value)


def _parse_yaml_flag(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return value is not False
    raise invalid_value("must be true or false without quotes: NorFab takes everything but false for true", value)


def parse_whole_number(value: Any, minimum: int, maximum: int, expected: str) -> int:
    """Return a whole number, which may be given as digits, no more of them than `maximum` has."""
    is_text = isinstance(value, str) and re.fullmatch(r"[0-9]+", value) and len(value) <= len(str(maximum))
    number = int(value) if is_text else value
    if type(number) is not int or not minimum <= number <= maximum:
        raise invalid_value(expected, value)
    return number


def _parse_port(value: Any) -> int:
    return parse_whole_number(value, 0, MAX_PORT, f"must be a port number, 0 to {MAX_PORT}")


def _parse_wrong_token_limit(value: Any) -> int:
    expected = f"must be a whole number, 0 (no limit) to {MAX_WRONG_TOKENS}"
    return 0 if value is None else parse_whole_number(value, 0, MAX_WRONG_TOKENS, expected)


def _parse_count(value: Any) -> int:
    return parse_whole_number(value, 1, MAX_COUNT, f"must be a whole number, 1 to {MAX_COUNT}")


def _is_host(text: str) -> bool:
    """Whether `text` is an IP address (without brackets) or a host name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        name = text.removesuffix(".")
        return len(name) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in name.split("."))  # noqa: PLR2004  RFC 1035
    return True


def _parse_bind_host(value: Any) -> str:
    host = parse_text(value).strip()
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if host and not _is_host(host):
        raise invalid_value("must be an IP address or a host name, or empty for all interfaces", value)
    return host


def _split_port(text: str) -> tuple[str, str]:
    """Return host (without the brackets of an IPv6 address) and port of `host:port`; empty texts where missing."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return (host if ":" in host else "", rest.removeprefix(":") if rest.startswith(":") else "")
    host, _, port = text.rpartition(":")
    return (host if ":" not in host else "", port)


def _is_tcp(text: str, *, wildcards: bool) -> bool:
    host, port = _split_port(text.removeprefix("tcp://"))
    is_port = port.isascii() and port.isdigit() and int(port) <= MAX_PORT and (wildcards or int(port) > 0)
    return (is_port or (wildcards and port == "*")) and ((wildcards and host == "*") or (bool(host) and _is_host(host)))


def _parse_endpoint(value: Any, *, wildcards: bool) -> str:
    text = parse_text(value)
    if text.startswith("ipc://"):
        path = text.removeprefix("ipc://")
        if not PurePosixPath(path).is_absolute() or path.endswith("/"):
            raise invalid_value("must be ipc:// and an absolute path, or tcp://HOST:PORT", value)
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise invalid_value(f"must have a path of at most {MAX_SOCKET_PATH_BYTES} bytes", value)
    elif not text.startswith("tcp://") or not _is_tcp(text, wildcards=wildcards):
        raise invalid_value("must be tcp://HOST:PORT, or ipc:// and an absolute path", value)
    return text


def _parse_curve_key(value: Any) -> str:
    if not isinstance(value, str) or not Z85_KEY.fullmatch(value):
        raise refusal("must be a CURVE public key, 40 Z85 characters in quotes")
    return value


def _parse_http_url(value: Any) -> str:
    text = parse_text(value)
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # unbalanced brackets, or an invalid port
        is_url = False
    if not is_url or "@" in parts.netloc or set("?# \\") & set(text) or not text.isprintable():
        # Without the value: it may hold a password.
        raise refusal("must be a URL, http://… or https://…, without user, query or fragment")
    return text


def _parse_scope(value: Any) -> str:
    if not _SCOPE.fullmatch(parse_text(value)):
        raise invalid_value('must be a scope: printable ASCII without blanks, " and \\', value)
    return str(value)


def _parse_module_name(value: Any) -> str:
    text = parse_text(value)
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in text.split(".")):
        raise invalid_value("must be the dotted name of a Python module, as in package.module", value)
    return text


def parse_network_name(value: Any) -> str:
    """Accept the forms of a Host header: `name`, `name:port`, `name:*`, IPv6 addresses in brackets."""
    text = parse_text(value)
    is_plain = _is_host(text.strip("[]") if text.startswith("[") and text.endswith("]") else text)
    host, port = _split_port(text)
    has_port = bool(host) and _is_host(host) and (port == "*" or (port.isascii() and port.isdigit()))
    if not text or (":" in text and not text.startswith("[") and not has_port) or not (is_plain or has_port):
        raise invalid_value("must be NAME, NAME:PORT or NAME:*, with an IPv6 address in brackets", value)
    return text


def _parse_origin(value: Any) -> str:
    """Accept the forms of an Origin header (RFC 6454): scheme, host, port; the port may be `*`."""
    text = parse_text(value)
    scheme, separator, rest = text.partition("://")
    try:
        parse_network_name(rest)
        is_origin = bool(separator) and re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) is not None
    except PydanticCustomError:
        is_origin = False
    if not is_origin:
        raise invalid_value("must be SCHEME://NAME, SCHEME://NAME:PORT or SCHEME://NAME:*, without a path", value)
    return text


def _parse_fleet_name(value: Any) -> str:
    text = parse_text(value)
    is_name = 1 <= len(text) <= MAX_NAME_CHARACTERS and text.isprintable() and not {" ", ","} & set(text)
    if not is_name or text in ("all", "any"):
        limit = f"1 to {MAX_NAME_CHARACTERS} characters without blanks and commas, and not all or any"
        raise invalid_value(f"must be a worker's name or a glob, {limit}", value)
    return text


def _distinct_fleet_names(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > MAX_WORKERS:
        raise refusal(f"must have at most {MAX_WORKERS} names, got {len(names)}")
    return tuple(dict.fromkeys(names))


def parse_list(value: Any) -> Any:
    """Return a value that must be a list."""
    if not isinstance(value, (list, tuple)):
        raise invalid_value("must be a list", value)
    return value


def _parse_section(value: Any) -> Any:
    if not isinstance(value, dict):
        raise invalid_value("must be a mapping", value)
    return value


Flag = Annotated[bool, BeforeValidator(_parse_flag)]
YamlFlag = Annotated[bool, BeforeValidator(_parse_yaml_flag)]
Port = Annotated[int, BeforeValidator(_parse_port)]
Count = Annotated[int, BeforeValidator(_parse_count)]
WrongTokenLimit = Annotated[int, BeforeValidator(_parse_wrong_token_limit)]
BindHost = Annotated[str, BeforeValidator(_parse_bind_host)]
BindEndpoint = Annotated[str, BeforeValidator(partial(_parse_endpoint, wildcards=True))]
ConnectEndpoint = Annotated[str, BeforeValidator(partial(_parse_endpoint, wildcards=False))]
CurveKey = Annotated[str, BeforeValidator(_parse_curve_key)]
HttpUrl = Annotated[str, BeforeValidator(_parse_http_url)]
Section = Annotated[dict[str, Any], BeforeValidator(_parse_section)]
Text = Annotated[str, BeforeValidator(parse_text)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(parse_list)]
Scopes = Annotated[tuple[Annotated[str, BeforeValidator(_parse_scope)], ...], BeforeValidator(parse_list)]
ModuleNames = Annotated[
    tuple[Annotated[str, BeforeValidator(_parse_module_name)], ...],
    BeforeValidator(parse_list),
    AfterValidator(lambda names: tuple(dict.fromkeys(names))),
]
StateFolder = Annotated[str, BeforeValidator(_parse_folder)]
FleetNames = Annotated[
    tuple[Annotated[str, BeforeValidator(_parse_fleet_name)], ...],
    BeforeValidator(parse_list),
    AfterValidator(_distinct_fleet_names),
]
Origins = Annotated[tuple[Annotated[str, BeforeValidator(_parse_origin)], ...], BeforeValidator(parse_list)]


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
    """Return a bind host as part of a URL: all interfaces as 127.0.0.1, IPv6 addresses in brackets."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
