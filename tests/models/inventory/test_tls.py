"""The inventory's `tls` and `require_tls`, and what is warned about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nfcli.models.inventory.schema import WorkerInventory

CERTIFICATE = {"certfile": "tls/server.crt", "keyfile": "tls/server.key"}
EVERYWHERE = "0.0.0.0"  # noqa: S104  what is tested


def inventory(**settings: Any) -> WorkerInventory:
    """Return a worker's inventory with authentication on."""
    return WorkerInventory.model_validate({"service": "fastmcp", "authentication_enabled": True, **settings})


def test_tls_makes_urls_https() -> None:
    """Also those that are published by default."""
    worker = inventory(tls=CERTIFICATE)
    assert worker.base_url() == "https://127.0.0.1:8001"
    assert worker.auth_bearer.metadata_urls(worker.base_url()) == ("https://127.0.0.1:8001",) * 2
    assert inventory().base_url() == "http://127.0.0.1:8001"


def test_files_are_relative_to_the_inventory() -> None:
    """Only those that are set; absolute ones stay."""
    assert inventory(tls=CERTIFICATE).tls is not None
    tls = inventory(tls={**CERTIFICATE, "keyfile": "/k"}).tls
    assert tls is not None
    assert tls.files(Path("/lab")) == {"certfile": Path("/lab/tls/server.crt"), "keyfile": Path("/k")}


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        ({}, "Field required"),
        ({"certfile": ""}, "must be the name of a file, got ''"),
        ({"certfile": ["a"]}, "must be the name of a file, got a list"),
        ({"certfile": "a\x00b"}, "must be the name of a file without control characters"),
        ({"certfile": "a" * 4097}, "must be the name of a file, got 'aaa"),
        ({"certfile": "a", "cert": "b"}, "Extra inputs are not permitted"),
    ],
)
def test_invalid_section_is_refused(tls: dict[str, Any], message: str) -> None:
    """With the rule."""
    with pytest.raises(ValidationError) as caught:
        inventory(tls=tls)
    assert str(caught.value.errors()[0]["msg"]).startswith(message)


@pytest.mark.parametrize(
    ("settings", "has_warning"),
    [
        ({}, False),
        ({"host": "::1"}, False),
        ({"host": EVERYWHERE}, True),
        ({"host": ""}, True),
        ({"host": "192.0.2.1"}, True),
        ({"host": EVERYWHERE, "tls": CERTIFICATE}, False),
        ({"host": EVERYWHERE, "trusted_proxies": ["10.0.0.0/8"]}, False),
        ({"host": EVERYWHERE, "authentication_enabled": False, "allow_unauthenticated": True}, False),
    ],
)
def test_tokens_over_plain_http_are_warned_about(settings: dict[str, Any], has_warning: bool) -> None:
    """Where other machines can connect; with `require_tls` nothing starts then (RFC 6750 section 5.3)."""
    worker = inventory(**settings)
    assert [text.startswith("tokens and results cross the network") for text in worker.warnings()] == [
        True
    ] * has_warning
    assert worker.start_problem is None
    required = inventory(**settings, require_tls=True)
    is_open = settings.get("allow_unauthenticated", False)
    assert (required.start_problem or "").startswith("require_tls is true and ") == (has_warning or is_open)


@pytest.mark.parametrize(
    ("section", "warning"),
    [
        ({}, None),
        ({"workers": 4, "timeout_keep_alive": 5}, None),
        ({"ssl_certfile": "a"}, "uvicorn.ssl_certfile has no effect: set tls.certfile"),
        ({"ssl_ciphers": "a"}, "uvicorn.ssl_ciphers has no effect: set tls"),
        ({"forwarded_allow_ips": "*"}, "uvicorn.forwarded_allow_ips has no effect: set trusted_proxies"),
        ({"host": "h", "port": 1}, "uvicorn.host, uvicorn.port have no effect: set host, port"),
    ],
)
def test_keys_of_uvicorn_that_look_effective_are_warned_about(section: dict[str, Any], warning: str | None) -> None:
    """The section is reserved: one line names what to set instead."""
    expected = [] if warning is None else [f"the section uvicorn is not used, {warning}"]
    assert inventory(uvicorn=section).warnings() == expected
