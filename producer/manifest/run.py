"""One run: chunks are submitted, a bounded number at a time, and their rows written as they come.

What is done is in the output first and then in the journal; what was submitted and is not done is
submitted again by the run that goes on, under the same ids, so that its results are found.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable

from producer.contract import Chunk, JobError, JobFailed, JobResult, JobState
from producer.errors import BrokerUnavailable
from producer.manifest.feed import Feed
from producer.manifest.interrupt import Interrupt
from producer.manifest.journal import Past
from producer.manifest.outputs import Output
from producer.manifest.patience import Patience
from producer.manifest.prepare import Prepared
from producer.manifest.progress import Progress
from producer.manifest.rows import SKIPPED, Row, Rows, counted
from producer.manifest.service import Notes, Service

SENT_AT_ONCE = 16
AHEAD = 4
"""In order, so many times the chunks in flight may wait for an earlier one."""

WAIT_S = 0.5
SOURCE_WAIT_S = 0.05
CHECK_S = 60.0
"""How often those in flight are looked for, in seconds: Redis may have lost them, or nobody takes
them."""


class Run:
    """A run over what a feed gives.

    Args:
        service: where jobs go.
        feed: the chunks that are not done.
        output: where rows go; cut back to what is done.
        notes: the journal.
        past: what was done before.
        rows: makes jobs of images, and rows of results.
        in_flight: most chunks that are submitted and not done.
        ordered: rows come in the order of the source, else as they are had.
        patience_s: longest outage that is waited out, in seconds.
    """

    def __init__(
        self,
        service: Service,
        feed: Feed[Prepared],
        output: Output,
        notes: Notes,
        past: Past,
        rows: Rows,
        *,
        in_flight: int,
        ordered: bool,
        progress: Progress,
        interrupt: Interrupt,
        patience_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._watch = service.watch()
        self._feed = feed
        self._output = output
        self._notes = notes
        self._past = past
        self._rows = rows
        self._in_flight = in_flight
        self._ordered = ordered
        self._progress = progress
        self._interrupt = interrupt
        self._clock_s = clock_s
        self._sending = Patience(patience_s, progress.say, clock_s)
        # What was submitted is in the store already.
        self._hearing = Patience(patience_s, progress.say, clock_s, reached=True)
        self._unsent: list[Prepared] = []
        self._send_at_s = clock_s()
        self._check_at_s = clock_s() + CHECK_S
        self._answered = False
        self._fault: OSError | ValueError | None = None
        self._flying: dict[str, Prepared] = {}
        self._ready: dict[int, tuple[Prepared, list[Row], Counter[str]]] = {}
        self._next = 0
        self._written: list[int] = []
        self._written_counts: Counter[str] = Counter()
        self.counts: Counter[str] = Counter(past.counts)

    @property
    def flying(self) -> int:
        """How many chunks are submitted and not done."""
        return len(self._flying)

    def go(self) -> None:
        """Run to the end. However it ends, what is done by then is kept. Where the source fails,
        what is in flight is waited for: it could not be had later from a source that is damaged.

        Raises:
            KeyboardInterrupt: by a signal.
            BrokerUnavailable: the broker or the results store is away for too long.
            OSError, ValueError: by the source or the output.
        """
        try:
            while self._step():
                pass
            if self._fault is not None:
                raise self._fault
        finally:
            self._commit()
            self._watch.close()
        self._notes.ended()

    def _step(self) -> bool:
        self._send()
        if self._flying:
            for result in self._heard():
                prepared = self._flying.pop(result.job_id, None)
                if prepared is not None:  # else it was lost, and is found when it is sent again
                    self._take(prepared, result)
            self._look_for_them()
        elif self._unsent:
            self._sleep(self._send_at_s - self._clock_s())
        if self._output.due:
            self._commit()
        self._progress.show(self.counts, len(self._flying))
        return bool(self._flying or self._unsent or not self._feed.over)

    def _send(self) -> None:
        if self._clock_s() < self._send_at_s:
            return
        while len(self._unsent) < SENT_AT_ONCE and self._room():
            idle = not self._unsent and not self._flying
            prepared = self._next_prepared(WAIT_S if idle else 0.0)
            if prepared is None:
                break
            if not prepared.seen:
                chunk = prepared.chunk
                self._notes.sent(chunk.number, chunk.digest(), prepared.left_out)
            if prepared.images:
                self._unsent.append(prepared)
            else:
                self._finish(prepared, [], Counter())
        if self._unsent:
            self._submit(self._unsent)

    def _next_prepared(self, wait_s: float) -> Prepared | None:
        try:
            with self._interrupt.waiting():
                return self._feed.get(wait_s)
        except (OSError, ValueError) as exc:
            self._fault = exc
            if self._flying or self._unsent:
                self._progress.say(f"{exc} The chunks in flight are waited for.")
            return None

    def _room(self) -> bool:
        flying = len(self._flying) + len(self._unsent)
        waiting = flying + len(self._ready)
        return flying < self._in_flight and waiting < AHEAD * self._in_flight

    def _submit(self, batch: list[Prepared]) -> None:
        jobs = [self._job(one) for one in batch]
        try:
            with self._interrupt.waiting():
                self._service.submit_many(jobs)
        except BrokerUnavailable as exc:
            self._fly(one for one in batch if self._job_id(one) in exc.submitted)
            self._unsent = [one for one in batch if self._job_id(one) not in exc.submitted]
            self._send_at_s = self._clock_s() + self._sending.failed(exc)
        except JobFailed as exc:
            if len(batch) > 1:  # none was sent: one of them is at fault
                for place, one in enumerate(batch):
                    self._submit([one])
                    if self._unsent:  # there is an outage now
                        self._unsent = batch[place:]
                        return
                return
            self._unsent = []
            error = JobError.of(exc)
            rows = [self._rows.failed(i, reference, error) for i, reference in batch[0].asked]
            self._finish(batch[0], rows, counted(rows))
        else:
            self._sending.well()
            self._unsent = []
            self._fly(batch)

    def _fly(self, sent: Iterable[Prepared]) -> None:
        new = {self._job_id(one): one for one in sent}
        self._flying |= new
        self._watch.add(new)

    def _job(self, prepared: Prepared) -> Chunk:
        references = [reference for _, reference in prepared.asked]
        return self._rows.job(self._job_id(prepared), prepared.images, references)

    def _job_id(self, prepared: Prepared) -> str:
        return f"{self._past.run}.{prepared.chunk.number}"

    def _heard(self) -> list[JobResult]:
        wait_s = WAIT_S if self._feed.over or not self._room() else SOURCE_WAIT_S
        if self._unsent:
            wait_s = max(0.0, min(wait_s, self._send_at_s - self._clock_s()))
        try:
            with self._interrupt.waiting():
                results = self._watch.next(wait_s)
        except BrokerUnavailable as exc:
            self._sleep(self._hearing.failed(exc))
            return []
        self._hearing.well()
        self._answered = self._answered or bool(results)
        return results

    def _look_for_them(self) -> None:
        """Submit again what nobody knows any more: Redis came back empty, or ran out of time. Say
        so when no worker takes any."""
        if self._clock_s() < self._check_at_s or self._unsent:
            return
        self._check_at_s = self._clock_s() + CHECK_S
        try:
            with self._interrupt.waiting():
                states = {job_id: self._state(job_id) for job_id in self._flying}
        except BrokerUnavailable:
            return
        lost = [job_id for job_id, state in states.items() if state is None]
        self._unsent = [self._flying.pop(job_id) for job_id in lost]
        if not self._answered and set(states.values()) == {JobState.QUEUED}:
            self._progress.say("No worker takes the chunks in flight. Is one running?")
        self._answered = False

    def _state(self, job_id: str) -> JobState | None:
        record = self._service.status(job_id)
        return record.state if record else None

    def _take(self, prepared: Prepared, result: JobResult) -> None:
        rows = self._rows.answered(prepared.images, prepared.asked, result)
        self._finish(prepared, rows, counted(rows, result.counts))

    def _finish(self, prepared: Prepared, rows: list[Row], counts: Counter[str]) -> None:
        """Write the rows of a chunk, or keep them until those before it are written."""
        for row in rows:
            if row["index"] in prepared.texts:
                row["text_path"] = prepared.texts[row["index"]]
        if prepared.invalid:
            invalid = [self._rows.invalid(*one) for one in prepared.invalid]
            rows = sorted([*rows, *invalid], key=lambda row: int(row["index"]))
            counts = counts + counted(invalid)
        if prepared.skipped:
            counts = counts + Counter({SKIPPED: prepared.skipped})
        self._ready[prepared.chunk.number] = prepared, rows, counts
        if not self._ordered:
            self._write(prepared.chunk.number)
            return
        while self._past.is_done(self._next) or self._next in self._ready:
            if self._next in self._ready:
                self._write(self._next)
            self._next += 1

    def _write(self, number: int) -> None:
        _, rows, counts = self._ready.pop(number)
        self._output.write(rows)
        self._written.append(number)
        self._written_counts += counts
        self.counts += counts

    def _commit(self) -> None:
        if self._written:
            mark = self._output.commit()
            self._notes.done(self._written, mark, self._written_counts)
            self._written, self._written_counts = [], Counter()

    def _sleep(self, seconds: float) -> None:
        with self._interrupt.waiting():
            time.sleep(max(0.0, seconds))
