"""The client for programs that use asyncio: the same jobs, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack

from ...models.protocol.jobs import Event, Results
from ...models.protocol.pending_job import OnEvent
from .jobs.markdown import to_markdown
from .jobs.questions import OnInput
from .jobs.runner import JobOptions

if TYPE_CHECKING:
    from .client import Client
    from .jobs.job import Job


class AsyncJob:
    """A submitted job: `await` it, or its `result()`. Used in the event loop that it was submitted in."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.uuid = job.uuid
        self.service = job.service
        self.task = job.task

    def __repr__(self) -> str:
        return f"<Async{repr(self._job)[1:]}"

    def __await__(self) -> Generator[Any, None, Results]:
        return self.result().__await__()

    async def result(self) -> Results:
        """Return the results, once they are there, as `Client.run_job` does.

        Cancelling the task that waits here doesn't cancel the job.

        Raises:
            CancelledError: the job was cancelled (`asyncio.CancelledError`).
            NfcliError: as `Client.run_job`.
        """
        future = asyncio.wrap_future(self._job.future)
        future.add_done_callback(_retrieve)  # asyncio logs what nobody has retrieved, and the wait may be cancelled
        results: Results = await asyncio.shield(future)
        return results

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events of the job as they come, from the first one on, until it has ended."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        seen = 0
        with self._job.watching(partial(_set_soon, loop, changed.set)):
            while True:
                changed.clear()
                is_over = self._job.done()
                seen, found = self._job.events_after(seen)
                for event in found:
                    yield event
                if is_over:
                    return
                await changed.wait()

    def done(self) -> bool:
        """Whether it has ended."""
        return self._job.done()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._job.cancelled()

    def cancel(self) -> bool:
        """End the wait for the results, as `Job.cancel` does."""
        return self._job.cancel()

    def send_response(self, input_id: str, value: Any = None, worker: str | None = None, **options: Any) -> None:
        """Answer a question, as `Job.send_response` does."""
        self._job.send_response(input_id, value, worker, **options)


class AsyncClient:
    """Runs jobs for a program that uses asyncio; created by `NorFab.make_async_client`.

    Up to 32 jobs run at the same time. `client` is what does the work, in threads of its own, and has the other
    methods, which don't wait for tasks.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel the jobs and close the connections."""
        await asyncio.to_thread(self.client.close)

    async def run_job(
        self,
        service: str,
        task: str,
        *,
        markdown: bool = False,
        on_event: OnEvent | None = None,
        on_input: OnInput | None = None,
        **options: Unpack[JobOptions],
    ) -> Any:
        """Run a task and return the results as `Client.run_job` does; cancelling the wait cancels the job.

        `on_event` and `on_input` are called in another thread.

        Raises:
            NfcliError: as `Client.run_job`.
        """
        # Unlike the one of `submit_job`, nobody else can answer.
        job = self._submit(service, task, on_event, on_input or (lambda _: None), options)
        try:
            results = await job.result()
        except asyncio.CancelledError:
            job.cancel()
            raise
        return to_markdown(service, task, results) if markdown else results

    async def submit_job(
        self,
        service: str,
        task: str,
        *,
        on_event: OnEvent | None = None,
        on_input: OnInput | None = None,
        **options: Unpack[JobOptions],
    ) -> AsyncJob:
        """Run a task beside others, as `Client.submit_job` does."""
        return self._submit(service, task, on_event, on_input, options)

    def _submit(
        self, service: str, task: str, on_event: OnEvent | None, on_input: OnInput | None, options: JobOptions
    ) -> AsyncJob:
        return AsyncJob(self.client.submit_job(service, task, on_event=on_event, on_input=on_input, **options))


def _set_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Have a callback called in a loop, from another thread; nothing where the loop has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def _retrieve(future: asyncio.Future[Results]) -> None:
    if not future.cancelled():
        future.exception()
