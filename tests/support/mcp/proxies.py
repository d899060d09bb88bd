"""Reverse proxies that run the manual's configurations: nginx, Caddy, HAProxy."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.fabric.worker import eventually
from support.mcp.certificates import make_certificates, trusting
from support.mcp.served_worker import WAIT_SECONDS, McpAddress

NAME = "mcp.example.com"
ATTEMPTS = 3


class Proxied(McpAddress):
    """A server behind a proxy on this machine, that clients reach as `https://mcp.example.com`."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.url = f"https://{NAME}/mcp"
        self.port = port
        self.context = context

    def status(self, source: str | None = None, **options: Any) -> int:
        """Post a request; return the status of the response, which may be the proxy's own or a stream."""
        return self.send(self.request(**options), source)[0]

    def connect(self, source: str | None = None) -> socket.socket:
        """Open a connection with TLS."""
        address = ("127.0.0.1", self.port)
        plain = socket.create_connection(address, WAIT_SECONDS, source_address=(source, 0) if source else None)
        return self.context.wrap_socket(plain, server_hostname=NAME)


@dataclass(frozen=True)
class Program:
    """A proxy: its program, the file on the page, and how that is adapted; `run` returns the command."""

    name: str
    file: str
    changes: Callable[[Path, int], dict[str, str]]
    around: Callable[[Path, str], str]
    run: Callable[[Path], list[str]]


def nginx_file(folder: Path, text: str) -> str:
    """Return a whole configuration with `text` as the part that the page has."""
    user = "user root;" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    return f"{user}\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{text}\n}}\n"


PROGRAMS = [
    Program(
        "nginx",
        "nginx.conf",
        lambda folder, port: {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/etc/ssl/mcp.example.com.crt": f"{folder}/server.crt",
            "/etc/ssl/mcp.example.com.key": f"{folder}/server.key",
        },
        nginx_file,
        lambda file: ["nginx", "-e", "stderr", "-c", str(file), "-p", str(file.parent), "-g", "daemon off;"],
    ),
    Program(
        "caddy",
        "Caddyfile",
        lambda folder, port: {
            f"{NAME} {{": f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {folder}/server.crt {folder}/server.key"
        },
        lambda _folder, text: f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}",
        lambda file: ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"],
    ),
    Program(
        "haproxy",
        "haproxy.cfg",
        lambda folder, port: {
            "bind :443 ssl crt /etc/ssl/mcp.example.com.pem": f"bind 127.0.0.1:{port} ssl crt {folder}/both.pem"
        },
        lambda _folder, text: text,
        lambda file: ["haproxy", "-db", "-f", str(file)],
    ),
]


@contextmanager
def run_proxy(
    program: Program, folder: Path, files: Mapping[str, str], addresses: Mapping[str, str]
) -> Iterator[Proxied]:
    """Run a proxy with its configuration among `files`; `addresses` replace those in them. Skip without the program.

    Each address occurs somewhere; other files are written to the folder, and their paths in `/etc/haproxy` replaced.
    """
    if shutil.which(program.name) is None:
        pytest.skip(f"{program.name} is not installed")
    make_certificates(folder, NAME)
    (folder / "both.pem").write_bytes((folder / "server.crt").read_bytes() + (folder / "server.key").read_bytes())
    texts = dict(files)
    for old, new in {**addresses, "/etc/haproxy/": f"{folder}/"}.items():
        assert old not in addresses or any(old in text for text in texts.values())
        texts = {name: text.replace(old, new) for name, text in texts.items()}
    for name, text in texts.items():
        (folder / name).write_text(text)
    with _running(program, folder, texts[program.file]) as port:
        yield Proxied(port, trusting(folder))


@contextmanager
def _running(program: Program, folder: Path, text: str) -> Iterator[int]:
    """Run a proxy on a free port of this machine; yield the port."""
    for _ in range(ATTEMPTS):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        adapted = text
        for old, new in program.changes(folder, port).items():
            assert adapted.count(old) == 1
            adapted = adapted.replace(old, new)
        file = folder / program.file
        file.write_text(program.around(folder, adapted))
        home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                program.run(file), cwd=folder, stdout=log, stderr=log, env={**os.environ, **home}
            )
        try:
            if eventually(lambda: process.poll() is not None or listens(port)) and process.poll() is None:  # noqa: B023
                yield port
                return
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS)
    pytest.fail((folder / "log").read_text())


def listens(port: int) -> bool:
    """Whether a connection to a port succeeds."""
    try:
        socket.create_connection(("127.0.0.1", port), WAIT_SECONDS).close()
    except OSError:
        return False
    return True
