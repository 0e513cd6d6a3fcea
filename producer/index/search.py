"""A search: the query is embedded, the nearest rows are found, and, if asked, weighed by ITM."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from producer.client import Client
from producer.contract import (
    MAX_CHUNK,
    Embedding,
    EmbeddingMismatch,
    EmbedJob,
    ErrorCode,
    JobResult,
    RankChunk,
    Ranked,
    utcnow,
)
from producer.index.table import Hit


@dataclass(frozen=True)
class Found:
    """A hit as it is shown. `ranked` is what ITM said of it; `code` why ITM could say nothing."""

    hit: Hit
    ranked: Ranked | None = None
    code: ErrorCode | None = None

    def document(self, rank: int) -> dict[str, Any]:
        """The hit for programs; `rank` counts from 1."""
        fields = asdict(self.hit)
        if self.hit.captioned_at is not None:
            fields["captioned_at"] = self.hit.captioned_at.isoformat()
        if self.ranked is not None:
            said = self.ranked.model_dump(mode="json")
            fields |= {name: said[name] for name in _SAID}
        if self.code is not None:
            fields["not_reranked"] = self.code.value
        return {"rank": rank, **fields}


_SAID = ("itm_probability", "itm_logit", "score", "calibrated_probability", "decision")


def embedded(client: Client, query: EmbedJob, timeout_s: float) -> Embedding:
    """The vector of a query's image, or of its one text, which is not begun after `timeout_s`.

    Raises:
        TimeoutError: no worker answered in time.
        JobFailed: the image cannot be had, or workers cannot embed.
    """
    query = query.model_copy(update={"expires_at": utcnow() + timedelta(seconds=timeout_s)})
    result = client.submit(query).result(timeout_s).raise_for_state()
    (embedding,) = result.embeddings or ()
    return embedding


def reranked(
    client: Client,
    hits: Sequence[Hit],
    query: EmbedJob,
    found_by: Embedding,
    timeout_s: float,
) -> list[Found]:
    """The hits by the paper's score (ITM logit + ITC cosine). Workers fetch the images again; those
    that cannot be had any more keep their places. `query` is of one text, and `found_by` what it
    was embedded as.

    Raises:
        EmbeddingMismatch: workers of another model or revision weighed them.
        TimeoutError, JobFailed: as `embedded`.
    """
    expires_at = utcnow() + timedelta(seconds=timeout_s)
    (text,) = query.texts or ()
    chunks = [
        RankChunk(
            images=tuple(hit.image_ref for hit in part),
            text=text,
            k=len(part),
            model=query.model,
            adapter=query.adapter,
            expires_at=expires_at,
        )
        for part in (hits[at : at + MAX_CHUNK] for at in range(0, len(hits), MAX_CHUNK))
    ]
    handles = client.submit_many(chunks)
    first = {handle.job_id: at * MAX_CHUNK for at, handle in enumerate(handles)}
    ranked: dict[int, Ranked] = {}
    codes: dict[int, ErrorCode] = {}
    for result in client.as_completed(handles, timeout_s):
        begin = first[result.job_id]
        by = result.raise_for_state().space
        if by is not None and by != (found_by.model, found_by.revision):
            raise EmbeddingMismatch(
                f"The hits are of {found_by.model} at {found_by.revision}, and were weighed by "
                f"{by[0]} at {by[1]}."
            )
        ranked |= {begin + one.index: one for one in result.ranking or ()}
        codes |= {begin + index: code for index, code in _failures(result)}
    return arranged(hits, ranked, codes)


def arranged(
    hits: Sequence[Hit], ranked: Mapping[int, Ranked], codes: Mapping[int, ErrorCode]
) -> list[Found]:
    """The hits in a new order: the best by ITM's score first, round those that it says nothing of,
    which stay where they are.

    Args:
        ranked, codes: what was said of hits, and why nothing was, by their places.
    """
    best_first = iter(sorted(ranked, key=lambda place: (-ranked[place].score, place)))
    found = []
    for place, hit in enumerate(hits):
        if place in ranked:
            better = next(best_first)
            found.append(Found(hits[better], ranked[better]))
        else:
            found.append(Found(hit, code=codes.get(place, ErrorCode.INTERNAL_ERROR)))
    return found


def _failures(result: JobResult) -> Iterable[tuple[int, ErrorCode]]:
    return [(item.index, item.error.code) for item in result.items or () if item.error is not None]
