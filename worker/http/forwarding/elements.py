"""Syntax of the headers that proxies add: Forwarded (RFC 7239), and the lists of X-Forwarded-For and its kin."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache

from ....models.errors import NfcliError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 7230: a token, and a string in quotes with backslash escapes.
_PAIR = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)|\"((?:[^\"\\]|\\.)*)\")")
_ESCAPE = re.compile(r"\\(.)")
_BLANKS = " \t"
_REMEMBERED_NODES = 4096
_MAX_NODE_CHARACTERS = 128
_PORT = re.compile(r":[0-9]{1,5}")


class ForwardingError(NfcliError):
    """A trusted proxy's headers are malformed or contradict each other; the message is meant for the client."""


def split_list(value: str) -> list[str]:
    """Return the elements of a comma-separated header without blanks around them; empty ones are dropped."""
    return [element for each in value.split(",") if (element := each.strip(_BLANKS))]


def parse_forwarded(value: str) -> list[Mapping[str, str]]:
    """Return the elements of a Forwarded header, each as its parameters by name in lower case.

    What a client sent comes before what proxies appended, so nothing malformed is skipped: an open quote could hide
    a proxy's own element.

    Raises:
        ForwardingError: the header is malformed, or an element has a parameter twice.
    """
    elements: list[dict[str, str]] = [{}]
    position, is_open = 0, True
    while position < len(value):
        if value[position] in _BLANKS:
            position += 1
            continue
        if value[position] in ",;":
            is_open = True
            if value[position] == ",":
                elements.append({})
            position += 1
            continue
        found = _PAIR.match(value, position) if is_open else None
        name = found[1].lower() if found else ""
        if found is None or name in elements[-1]:
            raise ForwardingError("the Forwarded header is malformed (RFC 7239 section 4)")
        elements[-1][name] = found[2] if found[2] is not None else _ESCAPE.sub(r"\1", found[3])
        position, is_open = found.end(), False
    return [element for element in elements if element]


def parse_node(node: str) -> Address | None:
    """Return the address of a proxy's client: an IP address, with or without a port; None of any other text.

    Other texts are `unknown`, names that hide an address (`_hidden`), and host names.
    """
    return _parse_node(node) if len(node) <= _MAX_NODE_CHARACTERS else None


@lru_cache(_REMEMBERED_NODES)
def _parse_node(node: str) -> Address | None:
    host, bracket, rest = node.removeprefix("[").partition("]") if node.startswith("[") else (node, "", "")
    if bracket and rest and not _PORT.fullmatch(rest):
        return None
    if not bracket and host.count(":") == 1:
        host, _, port = host.partition(":")
        if not _PORT.fullmatch(f":{port}"):
            return None
    return parse_address(host)


def parse_address(text: str) -> Address | None:
    """Return an IP address, an IPv4-mapped one as IPv4 and without a zone; None for other texts."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
