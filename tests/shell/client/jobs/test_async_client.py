"""Jobs of programs that use asyncio."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from nfcli.models.errors import NoWorkersError
from nfcli.models.protocol.jobs import is_automatic
from nfcli.shell.client.asynchronous import AsyncClient
from support.fabric.fake_broker import outcome
from support.shell.direct_workers import WAIT_SECONDS, Fabric


def run(fabric: Fabric, program: Callable[[AsyncClient], Awaitable[None]]) -> None:
    """Run a program with a client, which is closed at the end."""

    async def main() -> None:
        async with AsyncClient(fabric.client()) as client:
            await asyncio.wait_for(program(client), WAIT_SECONDS)

    asyncio.run(main())


def test_jobs_are_awaited_side_by_side(fabric: Fabric) -> None:
    """As any other awaitables; errors of the whole job are raised."""

    async def program(client: AsyncClient) -> None:
        held = await client.submit_job("fastmcp", "hold", workers="a")
        found = await asyncio.gather(*(client.run_job("fastmcp", "who", workers=name) for name in "ab"))
        assert [outcome(each) for each in found] == [{"a": "a"}, {"b": "b"}]
        assert not held.done()
        fabric.servers["a"].gate.set()
        assert outcome(await held) == outcome(await held.result()) == {"a": True}
        text = await client.run_job("fastmcp", "who", workers="a", markdown=True)
        assert text.startswith("# fastmcp: who")
        with pytest.raises(NoWorkersError):
            await client.run_job("fastmcp", "who", workers="nobody")

    run(fabric, program)


def test_events_are_iterated(fabric: Fabric) -> None:
    """While the job runs, and once more when it has ended."""

    async def program(client: AsyncClient) -> None:
        job = await client.submit_job("fastmcp", "report", workers="a")
        said = []
        async for event in job.events():
            if not is_automatic(event):
                said.append(event["message"])
            if event["message"] == "two":
                assert not job.done()
                fabric.servers["a"].gate.set()
        assert (said, job.done()) == (["one", "two"], True)
        assert [event["message"] async for event in job.events() if not is_automatic(event)] == said

    run(fabric, program)


def test_a_cancelled_wait_cancels_the_job_of_run_job_alone(fabric: Fabric) -> None:
    """That of a submitted job can be awaited again."""

    async def program(client: AsyncClient) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.run_job("fastmcp", "hold", workers="a"), 0.2)
        job = await client.submit_job("fastmcp", "hold", workers="b")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job.result(), 0.01)
        assert not job.done()
        fabric.servers["b"].gate.set()
        assert outcome(await job) == {"b": True}
        other = await client.submit_job("fastmcp", "hold", workers="a")
        assert other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
        assert other.cancelled()

    run(fabric, program)


def test_nothing_is_logged_of_a_job_whose_wait_was_cancelled(fabric: Fabric) -> None:
    """As asyncio does with errors that nobody has retrieved."""
    logged: list[dict[str, Any]] = []

    async def program(client: AsyncClient) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
        job = await client.submit_job("fastmcp", "hold", workers="a")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job.result(), 0.01)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        gc.collect()

    run(fabric, program)
    assert logged == []


def test_leaving_the_client_cancels_what_runs(fabric: Fabric) -> None:
    """The program ends, though a worker takes long."""
    jobs = []

    async def program(client: AsyncClient) -> None:
        jobs.append(await client.submit_job("fastmcp", "hold", workers="a"))

    run(fabric, program)
    assert jobs[0].cancelled()
