"""Any number of images ranked by a text, in BLIP's two passes (Li et al. 2022, section 5.1).

First every image is embedded, and the k whose cosines with the text are highest (ITC) are kept;
then the matching head weighs these with the text (ITM), and logit + cosine ranks them. Images are
taken from a stream and held a chunk at a time, so that memory does not grow with their number.
"""

import logging
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from producer.contract import EmbedChunk, Embedding, EmbedJob, MatchChunk
from producer.manifest.chunks import in_chunks
from producer.manifest.feed import Feed
from producer.manifest.flags import ANY_IMAGE
from producer.manifest.interrupt import Interrupt
from producer.manifest.journal import Past
from producer.manifest.outputs import Output
from producer.manifest.prepare import Preparer, remaining
from producer.manifest.progress import Progress
from producer.manifest.reference import Reference
from producer.manifest.rows import Rows
from producer.manifest.run import Run
from producer.manifest.service import NoNotes, Service
from producer.queues import INTERACTIVE
from producer.shortlist import Best, Cosines, RankedImage, Shortlist, Weighed

__all__ = ["RankedImage", "Ranker", "Ranking", "rank"]

log = logging.getLogger(__name__)

POLL_S = 0.5


@dataclass(frozen=True)
class Ranking:
    """The best images for a text, best first, and what became of all of them.

    `counts` says how many images succeeded, or failed with which code, in either pass.
    """

    text: str
    best: tuple[RankedImage, ...]
    counts: Counter[str] = field(default_factory=Counter)
    model: str = ""
    revision: str = ""


class Ranker:
    """Ranks images by texts.

    Args:
        service: where jobs go: a `producer.Client`.
        k: how many of the best by ITC are weighed by ITM, and returned.
        seen: further fields of all jobs: model, lane, mode, resolution.
        size: images of a chunk.
        in_flight: most chunks that are submitted and not done.
        patience_s: longest outage of the broker that is waited out, in seconds.
        timeout_s: longest time that the text's own embedding may take, in seconds.
        preparer: finds the images of references.
    """

    def __init__(
        self,
        service: Service,
        k: int = 32,
        *,
        seen: Mapping[str, Any] | None = None,
        size: int = 64,
        in_flight: int = 16,
        patience_s: float = 60.0,
        timeout_s: float = 300.0,
        preparer: Preparer | None = None,
        progress: Progress | None = None,
        interrupt: Interrupt | None = None,
    ) -> None:
        if k < 1:
            raise ValueError("k is how many images are returned: 1 or more.")
        self._service = service
        self._k = k
        self._seen = dict(seen or {})
        self._size = size
        self._in_flight = in_flight
        self._patience_s = patience_s
        self._timeout_s = timeout_s
        self._preparer = preparer or Preparer()
        self._progress = progress or _Logged()
        self._interrupt = interrupt or Interrupt()

    def rank(self, text: str, references: Iterable[Reference]) -> Ranking:
        """The k best of these images.

        Raises:
            EmbeddingMismatch: workers answered with different models, or revisions of one.
            JobFailed: the text could not be embedded.
            TimeoutError: no worker embedded it in time.
            BrokerUnavailable: the broker or the results store is away for too long.
        """
        wanted = self._embedded(text)
        shortlist = Shortlist(self._k)
        chunk = EmbedChunk(images=ANY_IMAGE, encoding="float16", **self._seen)
        counts = self._run(Cosines(chunk, wanted), references, shortlist, self._progress)
        weighing = MatchChunk(images=ANY_IMAGE, texts=(text,), **self._seen)
        best = Best()
        self._run(Weighed(weighing, wanted), shortlist.references(), best, _Logged())
        return Ranking(
            text,
            tuple(best.images(shortlist.rows)),
            counts + best.failed - Counter(succeeded=best.failed.total()),
            wanted.model,
            wanted.revision,
        )

    def _embedded(self, text: str) -> Embedding:
        job_id = f"{_new_id()}.text"
        # It waits for no bulk work: there may be hours of it.
        seen = self._seen | {"lane": INTERACTIVE}
        job = EmbedJob(job_id=job_id, texts=(text,), encoding="float32", **seen)
        watch = self._service.watch()
        deadline_s = time.monotonic() + self._timeout_s
        try:
            with self._interrupt.waiting():
                self._service.submit_many([job])
                watch.add([job_id])
                while not (results := watch.next(POLL_S)):
                    if time.monotonic() > deadline_s:
                        raise TimeoutError(f"{job_id} has not ended in {self._timeout_s:.0f} s.")
        finally:
            watch.close()
        (embedding,) = results[0].raise_for_state().embeddings or ()
        return embedding

    def _run(
        self, rows: Rows, references: Iterable[Reference], output: Output, progress: Progress
    ) -> Counter[str]:
        past = Past(_new_id())
        feed = Feed(remaining(in_chunks(references, self._size), past, self._preparer))
        try:
            run = Run(
                self._service,
                feed,
                output,
                NoNotes(),
                past,
                rows,
                in_flight=self._in_flight,
                ordered=False,
                progress=progress,
                interrupt=self._interrupt,
                patience_s=self._patience_s,
            )
            run.go()
        finally:
            feed.close()
        return run.counts


def rank(
    service: Service, text: str, images: Iterable[str | Path], k: int = 32, **options: Any
) -> Ranking:
    """The k of these images (URIs, or paths of files that workers can read) that fit a text best.

    `images` may be a generator of any length: it is read as fast as workers answer, once.
    `options` are those of `Ranker`: `in_flight`, `seen`, ... See `Ranker.rank` for what is raised.

        with Client() as client:
            for one in rank(client, "a red bicycle", uris, k=10).best:
                print(one.score, one.image)
    """
    references = (Reference(str(image), str(image)) for image in images)
    return Ranker(service, k, **options).rank(text, references)


class _Logged(Progress):
    """Shows nothing, and writes to the log what there is to say."""

    def say(self, sentence: str) -> None:
        """See `Progress.say`."""
        log.warning("%s", sentence)


def _new_id() -> str:
    return secrets.token_hex(8)
