"""The kinds of run: what each sends for its images, and what its rows say of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from producer.contract import (
    CaptionChunk,
    Chunk,
    EmbedChunk,
    Embedding,
    ItemResult,
    JobResult,
    Match,
    MatchChunk,
    public_uri,
)
from producer.manifest.reference import Reference, spelled
from producer.manifest.rows import Holds, Row, Rows, by_index

SCORES: dict[str, Holds] = {
    "itm_probability": "float64",
    "itm_logit": "float64",
    "itc_cosine": "float64",
    "score": "float64",
    "calibrated_probability": "float64",
    "decision": "string",
}
"""What a match says, by the names that it has in results."""

MATCH: dict[str, Holds] = {"text": "string", **SCORES}


class _OfTemplate(Rows):
    """Rows of jobs that are all like one chunk, but for their images."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk

    def job(
        self,
        job_id: str,
        images: tuple[str, ...],
        references: Sequence[Reference],  # noqa: ARG002 - pairs need them
    ) -> Chunk:
        """See `Rows.job`."""
        return self._chunk.model_copy(update={"job_id": job_id, "images": images})


class Captions(_OfTemplate):
    """caption: the best; none where a filter refused all. language: the one that was asked for, if
    any. score, mean_logprob, itm_probability: the caption's own, the last where captions are
    weighed. alternatives: the texts of further ones."""

    own: Mapping[str, Holds] = {
        "caption": "string",
        "language": "string",
        "score": "float64",
        "mean_logprob": "float64",
        "itm_probability": "float64",
        "alternatives": "strings",
    }

    def given(self, reference: Reference) -> Row:
        """See `Rows.given`."""
        return {"language": reference.language or self._chunk.language}

    def job(self, job_id: str, images: tuple[str, ...], references: Sequence[Reference]) -> Chunk:
        """See `Rows.job`."""
        chunk = super().job(job_id, images, references)
        languages = tuple(one.language for one in references)
        return chunk.model_copy(update={"languages": languages}) if any(languages) else chunk

    def cells(self, item: ItemResult) -> Row | None:
        """See `Rows.cells`."""
        if not item.captions:
            return None
        kept = [caption for caption in item.captions if not caption.rejected]
        if not kept:
            return {}
        best, *others = kept
        return {
            "caption": best.text,
            "score": best.score,
            "mean_logprob": best.mean_logprob,
            "itm_probability": best.itm_probability,
            "alternatives": [caption.text for caption in others],
        }


class Embeddings(_OfTemplate):
    """embedding: a list of numbers, or base64 of what `encoding` says. model, revision: the space
    that it lies in."""

    def __init__(self, chunk: EmbedChunk) -> None:
        super().__init__(chunk)
        self._encoding = chunk.encoding

    @property
    def own(self) -> Mapping[str, Holds]:
        """See `Rows.own`."""
        return embedding_columns(self._encoding)

    def cells(self, item: ItemResult) -> Row | None:
        """See `Rows.cells`."""
        return written(item.embeddings[0]) if item.embeddings else None


class Matches(_OfTemplate):
    """text: the one that fits best, and its scores. matches: all texts with theirs, best first."""

    own: Mapping[str, Holds] = {**MATCH, "matches": "matches"}

    def cells(self, item: ItemResult) -> Row | None:
        """See `Rows.cells`."""
        if not item.matches:
            return None
        matches = [{"text": match.text} | scores(match) for match in item.matches]
        return matches[0] | {"matches": matches}


class Pairs(_OfTemplate):
    """caption: the reference's own, and its scores. uri: what workers fetched, as it may be shown.

    An image that a chunk names more than once is sent once, with all its captions.
    """

    noun = "pairs"
    own: Mapping[str, Holds] = {"caption": "string", **SCORES, "uri": "string"}

    def given(self, reference: Reference) -> Row:
        """See `Rows.given`."""
        return {"caption": spelled(reference.caption or "")}

    def job(self, job_id: str, images: tuple[str, ...], references: Sequence[Reference]) -> Chunk:
        """See `Rows.job`."""
        texts: dict[str, list[str]] = {}
        for image, reference in zip(images, references, strict=True):
            texts.setdefault(image, []).append(reference.caption or "")
        own = {"images": tuple(texts), "texts_per_image": tuple(map(tuple, texts.values()))}
        return self._chunk.model_copy(update={"job_id": job_id} | own)

    def found(
        self, images: Sequence[str], result: JobResult
    ) -> Iterator[tuple[ItemResult | None, Row | None]]:
        """See `Rows.found`."""
        items = by_index(result)
        places = {image: place for place, image in enumerate(dict.fromkeys(images))}
        told = dict.fromkeys(images, 0)
        for image in images:
            item = items.get(places[image])
            match = _of_text(item, told[image])
            told[image] += 1
            yield item, scores(match) | {"uri": public_uri(image)} if match else None

    def cells(self, item: ItemResult) -> Row | None:
        """Of an image with one caption. See `Rows.cells`."""
        match = _of_text(item, 0)
        return scores(match) if match else None


def rows_of(chunk: Chunk) -> Rows:
    """The rows of a run whose jobs are like this one."""
    if isinstance(chunk, CaptionChunk):
        return Captions(chunk)
    if isinstance(chunk, EmbedChunk):
        return Embeddings(chunk)
    if isinstance(chunk, MatchChunk):
        return Pairs(chunk) if chunk.texts is None else Matches(chunk)
    raise TypeError(f"{chunk.task} has no rows: what it finds is of the chunk as a whole")


def scores(match: Match) -> dict[str, Any]:
    """What a match says, as columns."""
    return {name: getattr(match, name) for name in SCORES}


def embedding_columns(encoding: str) -> dict[str, Holds]:
    """The columns of an embedding that is written so."""
    vector: Holds = "vector" if encoding == "list" else "string"
    return {"embedding": vector, "encoding": "string", "model": "string", "revision": "string"}


def written(embedding: Embedding) -> dict[str, Any]:
    """An embedding as columns."""
    vector = embedding.vector
    return {
        "embedding": embedding.base64 if vector is None else list(vector),
        "encoding": embedding.encoding,
        "model": embedding.model,
        "revision": embedding.revision,
    }


def _of_text(item: ItemResult | None, index: int) -> Match | None:
    matches = item.matches if item else None
    return next((match for match in matches or () if match.index == index), None)
