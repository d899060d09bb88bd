"""The names of libraries that nfcli overrides or reads though they are not public: a new version may lack them.

An override of a method that is gone is never called and a missing attribute shows at run time only, so `pyproject.toml`
bounds these libraries above. Raise a bound once this file passes with the new version.
"""

from __future__ import annotations

from importlib import import_module

import pytest

NAMES = {
    "diskcache:Cache": "_con _sql",
    "diskcache:Disk": "fetch get put store",
    "httptools:HttpRequestParser": "feed_data get_http_version get_method set_dangerous_leniencies should_upgrade",
    "mcp.server.lowlevel:Server": "create_initialization_options middleware",
    "prompt_toolkit.history:History": "_loaded_strings",
    "uvicorn:Server": "capture_signals config force_exit server_state should_exit",
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol": (
        "connection_lost connection_made connections cycle headers loop on_header on_headers_complete on_message_begin "
        "on_message_complete parser transport _unset_keepalive_if_required"
    ),
    "uvicorn.protocols.http.httptools_impl:RequestResponseCycle": "keep_alive response_complete",
    "uvicorn.server:ServerState": "connections tasks",
    "zmq.auth.base:Authenticator": "zap_socket",
    "zmq.auth.thread:ThreadAuthenticator": "pipe",
}


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, names in NAMES.items() for name in names.split()])
def test_the_library_has_the_name(owner: str, name: str) -> None:
    """A method or attribute of a class, or one that its constructor sets."""
    module, _, class_name = owner.partition(":")
    found = getattr(import_module(module), class_name)
    assert hasattr(found, name) or name in found.__init__.__code__.co_names, f"{owner} has no {name}"
