"""A job for each call of a tool: submitted, waited for with progress, cancelled if given up."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import anyio

from producer.async_client import AsyncClient
from producer.contract import Job, JobResult, utcnow
from producer.errors import BrokerUnavailable, UnknownJob

Report = Callable[[float, float, str], Awaitable[None]]
"""Told how far it is: seconds waited, seconds at most, and where the job stands."""

CANCEL_S = 5.0


class NoAnswer(TimeoutError):  # noqa: N818 - that is what it is
    """No worker answered in time; the job has been cancelled."""

    def __init__(self, timeout_s: float, state: str) -> None:
        self.state = state
        super().__init__(f"no worker answered within {timeout_s:g} s; the job was {state}")


class Jobs:
    """Runs jobs for tools.

    Args:
        timeout_s: how long a call waits for its job. MCP clients have a limit of their own, often
            60 s.
        report_every_s: how often progress is told.
    """

    def __init__(
        self, client: AsyncClient, timeout_s: float = 50.0, report_every_s: float = 1.0
    ) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._report_every_s = report_every_s

    async def run(self, job: Job, report: Report) -> JobResult:
        """Submit a job and return how it ended.

        When the call is cancelled, or the time is over, the job is cancelled as well: it is not
        begun any more, and what a worker makes of it is dropped.

        Raises:
            NoAnswer: the time is over.
            BrokerUnavailable: it could not be submitted, or its result be read.
        """
        expires_at = utcnow() + timedelta(seconds=self._timeout_s)
        with anyio.CancelScope(shield=True):  # it is submitted, or not: both can be known
            handle = await self._client.submit(job.model_copy(update={"expires_at": expires_at}))
        ended = False
        try:
            began_s = anyio.current_time()
            while True:
                waited_s = anyio.current_time() - began_s
                left_s = self._timeout_s - waited_s
                if left_s <= 0:
                    record = await handle.status()
                    raise NoAnswer(self._timeout_s, str(record.state) if record else "forgotten")
                with suppress(TimeoutError):
                    result = await handle.result(min(left_s, self._report_every_s))
                    ended = True
                    return result
                record = await handle.status()
                state = str(record.state) if record else "forgotten"
                await report(anyio.current_time() - began_s, self._timeout_s, state)
        finally:
            if not ended:
                with (
                    anyio.CancelScope(shield=True),
                    anyio.move_on_after(CANCEL_S),
                    suppress(BrokerUnavailable, UnknownJob),
                ):
                    await handle.cancel()
