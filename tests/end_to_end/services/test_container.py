"""The image and the manifest of the manual under their conditions: read-only root, any uid, no rights, no account.

No container engine is needed: a mount namespace with the same mounts, variables and command stands for one.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nfcli.man.pages import read_example
from support.programs import PROGRAM, Program
from support.shell.containerfile import parse_containerfile

pytestmark = pytest.mark.slow

FOUND = dict(parse_containerfile(read_example("Containerfile")))
READY = r"worker fastmcp-worker-1 is ready \(pid \d+\): MCP at http://127\.0\.0\.1:(\d+)/mcp\n"
GROUP = 10_001
# Of those in the Containerfile, all but PATH and what is about Python.
VARIABLES = [each.replace("=/", "=/mnt/").replace(":/", ":/mnt/") for each in FOUND["ENV"].split() if "NFCLI_" in each]

# Mounts that kubelet makes, below a folder that every system has; a Python in a closed home folder is made reachable.
MOUNTS = """
set -e
closed=$1 needed=$2; shift 2
if [ -n "$closed" ]; then
    mount --bind "$needed" /media
    mount -t tmpfs -o mode=755 none "$closed"
    mkdir -p "$needed"
    mount --bind /media "$needed"
    umount /media
fi
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/config /mnt/state
mount -t tmpfs -o mode=777 none /mnt/config
mkdir /mnt/config/..v1
printf %s "$INVENTORY" > /mnt/config/..v1/inventory.yaml
ln -s ..v1 /mnt/config/..data
ln -s ..data/inventory.yaml /mnt/config/inventory.yaml
mount -o remount,ro /mnt/config
mount -t tmpfs -o mode=2770,gid=10001 none /mnt/state
mkdir -m 700 /mnt/state/lost+found
mount -o remount,ro,bind /mnt
mount -o remount,ro,bind /
cd /mnt/config
exec "$@"
"""


def as_user(user: int) -> list[str]:
    """Return the words that run a program as a container's user: without an account, capabilities and variables."""
    drop = ["setpriv", f"--reuid={user}", f"--regid={GROUP}", "--clear-groups", "--no-new-privs"]
    return [
        *drop,
        "--inh-caps=-all",
        "--bounding-set=-all",
        "env",
        "-i",
        "--chdir=/mnt/config",
        "PATH=/usr/bin:/bin",
        *VARIABLES,
    ]


def closed_folder(path: Path) -> str:
    """Return the first folder above a path that others can't enter, empty if there is none."""
    closed = [each for each in reversed(path.parents) if not each.stat().st_mode & stat.S_IXOTH]
    return str(closed[0]) if closed else ""


@pytest.fixture(scope="module", params=[10_001, 1_000_620_000], ids=["of the image", "of OpenShift"])
def container(request: pytest.FixtureRequest) -> Iterator[tuple[Program, int]]:
    """Run the image's command as a container would; skip where no namespace can be made."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can make the mounts of a container")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces can be made here")
    base = Path(sys.base_prefix)
    inventory = read_example("container-inventory.yaml").replace("8001", "0").replace("9464", "0")
    assert inventory != read_example("container-inventory.yaml")
    command = [word.replace("/config", "/mnt/config") for word in json.loads(FOUND["CMD"])]
    mount = ["unshare", "--mount", "sh", "-c", MOUNTS, "sh", closed_folder(base), str(base)]
    variables = {"PATH": os.environ["PATH"], "INVENTORY": inventory}
    program = Program([*mount, *as_user(request.param), str(PROGRAM), *command], env=variables)
    yield program, request.param
    program.kill()


def run_inside(program: Program, user: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the container, as `kubectl exec` does."""
    command = ["nsenter", "--mount", f"--target={program.process.pid}", *as_user(user), *words]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


def request(port: int, method: str, path: str, body: str = "", **headers: str) -> tuple[int, bytes]:
    """Return status and body of the response to a request that names the address of a pod."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        return response.status, response.read()


def test_the_image_serves_mcp_with_a_read_only_root_and_any_uid(container: tuple[Program, int]) -> None:
    """It is ready, its probes succeed, and tokens are managed by a command in it."""
    program, user = container
    port = int(program.wait_for(READY, seconds=60)[1])
    for path in ("/ready", "/health"):
        assert request(port, "GET", path, host="10.244.0.5:8001")[0] == 200
    probe = [word.replace("8001", str(port)) for word in json.loads(FOUND["HEALTHCHECK"].partition("CMD ")[2])[1:]]
    assert run_inside(program, user, sys.executable, *probe).returncode == 0
    words = ("-c", "fastmcp", "auth", "create-token", "username", "ann", "token", "t1")
    created = run_inside(program, user, str(PROGRAM), *words)
    assert (created.returncode, created.stderr) == (0, "")
    call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    headers = {"content-type": "application/json", "accept": "application/json", "authorization": "Bearer t1"}
    status, body = request(port, "POST", "/mcp", call, **headers)
    assert (status, b"get_version" in body) == (200, True)
    listed = run_inside(program, user, "ls", "-A", "/mnt/state")
    assert listed.stdout.split() == ["lost+found", "nfcli"]
    program.process.terminate()
    program.wait_for("stopped\n", seconds=10)
    assert program.end() == 0
