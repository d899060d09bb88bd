"""What the other tests rely on: the reference's processes start, stop, freeze and come back one by one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from nfcli.models.inventory.loader import load_inventory
from support.norfab.sites import EnvironmentJoiner, FabricMaker

HEARD_SECONDS = 5.0
UNHEARD_SECONDS = 0.5
WORKER = "demo-worker-2"


def _is_heard(fabric: Any, seconds: float = HEARD_SECONDS) -> bool:
    answer = fabric.client.call("mmi", task="get_status", timeout=seconds)
    return bool(answer["status"] == "200" and answer["results"]["endpoint"] == fabric.endpoint)


@pytest.mark.parametrize("tcp", [False, True], ids=["ipc", "tcp"])
def test_a_broker_that_was_killed_comes_back_with_its_key(new_fabric: FabricMaker, *, tcp: bool) -> None:
    """A client that was connected works again, without any action."""
    with new_fabric({}, tcp=tcp) as fabric:
        fabric.start()
        assert _is_heard(fabric)
        fabric.broker.kill()
        assert not _is_heard(fabric, UNHEARD_SECONDS)
        fabric.launch_broker()
        fabric.await_broker()
        assert _is_heard(fabric)
        security = fabric.client.call("mmi", task="get_status")["results"]["security"]
        assert security["zmq_auth"] is True


def test_a_frozen_broker_goes_on_where_it_was(new_fabric: FabricMaker) -> None:
    """Its socket is open all the time: what is sent to it is answered when it thaws."""
    with new_fabric({}) as fabric:
        fabric.start()
        assert _is_heard(fabric)
        fabric.broker.freeze()
        assert not _is_heard(fabric, UNHEARD_SECONDS)
        fabric.broker.thaw()
        assert _is_heard(fabric)


def test_a_worker_joins_a_broker_that_starts_later(new_fabric: FabricMaker) -> None:
    """It asks for its inventory until there is somebody to ask, and gets the one that the broker's folder has."""
    settings = {"service": "demo", "motto": "late"}
    with new_fabric({WORKER: settings}) as fabric:
        fabric.launch_worker(WORKER)
        fabric.launch_broker()
        fabric.await_broker()
        fabric.workers[WORKER].await_ready()
        fabric.await_workers(WORKER)
        done = fabric.client.call("run_job", service="demo", task="get_inventory")
        assert done["result"][WORKER]["result"] == settings
        assert fabric.client.call("mmi", service="sid", task="get_inventory", name=WORKER)["results"] == settings


def test_a_broker_that_is_started_again_knows_no_worker(new_fabric: FabricMaker) -> None:
    """What joined has to join again; the reference's workers do so within 15 s, which isn't waited for here."""
    with new_fabric({WORKER: {"service": "demo"}}) as fabric:
        fabric.start(WORKER)
        fabric.broker.stop()
        fabric.launch_broker()
        fabric.await_broker()
        assert _is_heard(fabric)
        assert fabric.show_workers() == []
        fabric.workers[WORKER].kill()
        fabric.launch_worker(WORKER)
        fabric.workers[WORKER].await_ready()
        fabric.await_workers(WORKER)


def test_nothing_is_left_of_a_fabric(new_fabric: FabricMaker) -> None:
    """Not even of one that is frozen."""
    with new_fabric({WORKER: {"service": "demo"}}) as fabric:
        fabric.start(WORKER)
        fabric.broker.freeze()
        pids = [fabric.broker.pid, fabric.workers[WORKER].pid]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.killpg(pid, 0)


def test_a_key_that_looks_like_a_template_is_a_key(
    new_fabric: FabricMaker, joined_environment: EnvironmentJoiner, reference: Callable[..., Any]
) -> None:
    """Braces in a public key, which is random, mean nothing to the reference nor to us."""
    with new_fabric({}) as fabric:
        fabric.shared_key = "{{ab}}{%cd%}{#ef#}${gh}".ljust(40, "0")
        ours = load_inventory(joined_environment(fabric)).broker
        assert ours is not None
        theirs = reference({"broker": fabric.join_inventory}).call("broker_inventory")
        assert (ours.shared_key, theirs["shared_key"]) == (fabric.shared_key, fabric.shared_key)
