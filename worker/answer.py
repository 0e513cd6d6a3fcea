"""What the models said to one job, in the contract's words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from producer.contract import (
    Caption,
    CaptionJob,
    Embedding,
    EmbedJob,
    ImageJob,
    ItemResult,
    Match,
    MatchJob,
    ModelFacts,
    RankChunk,
    Ranked,
    RankJob,
    RegionCaptions,
)
from producer.filtering import CaptionFilter
from worker.caption_filter import Weight, reasons

if TYPE_CHECKING:
    from worker.calibration import Calibration

__all__ = ["Answer", "Interpreter", "PositionZero", "Weighed", "ranking_of_images"]

PositionZero = Literal["enc", "cls"]


class Answer(BaseModel):
    """What a job's result says beyond how it came about: fields of `JobResult`, by its names."""

    model_config = ConfigDict(frozen=True)

    captions: tuple[Caption, ...] | None = None
    regions: tuple[RegionCaptions, ...] | None = None
    matches: tuple[Match, ...] | None = None
    ranking: tuple[Ranked, ...] | None = None
    embeddings: tuple[Embedding, ...] | None = None
    abstained: bool | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What there is, by the names of `JobResult`'s fields."""
        return {name: value for name, value in self if value is not None}


@dataclass(frozen=True)
class Weighed:
    """One image's captions, how each matches it, and where the image lies (a unit vector)."""

    captions: Sequence[Any]
    matches: Sequence[Any]
    vector: Sequence[float]


@dataclass(frozen=True)
class Interpreter:
    """Turns what engines said into answers.

    Args:
        matcher: which weights match and embed; None where none do.
        position_zero: what their ITM reads its answer from where a job does not say.
        calibration: of their scores, where there is one.
    """

    matcher: ModelFacts | None = None
    position_zero: PositionZero = "enc"
    calibration: "Calibration | None" = None

    @property
    def calibrated(self) -> bool:
        """Whether filters can ask for a calibrated probability."""
        calibration = self.calibration
        return calibration is not None and calibration.position_zero == self.position_zero

    def answer(self, job: ImageJob, said: Sequence[Any]) -> Answer:
        """The answer to a job, from what was said of each item of it, in their order."""
        match job:
            case CaptionJob():
                return self._captions(job, said)
            case MatchJob():
                found = [one for part in said for one in part]
                return Answer(matches=self._best_first(found, job))
            case RankJob():
                return Answer(ranking=self._ranking(said[0], job))
            case EmbedJob():
                vectors = [vector for part in said for vector in part]
                return Answer(embeddings=tuple(self._embedding(v, job.encoding) for v in vectors))

    def _captions(self, job: CaptionJob, said: Sequence[Any]) -> Answer:
        rows = [self._row(job, one) for one in said]
        abstained = None
        if job.filter is not None:
            abstained = all(caption.rejected for row in rows for caption in row)
        embeddings = None
        if job.embed is not None:
            embeddings = tuple(self._embedding(one.vector, job.embed) for one in said)
        if job.regions is None:
            return Answer(captions=rows[0], embeddings=embeddings, abstained=abstained)
        regions = tuple(
            RegionCaptions(box=box, captions=row)
            for box, row in zip(job.regions, rows, strict=True)
        )
        return Answer(regions=regions, embeddings=embeddings, abstained=abstained)

    def _row(self, job: CaptionJob, said: Any) -> tuple[Caption, ...]:
        captions = said.captions if isinstance(said, Weighed) else said
        if job.filter is None:
            return tuple(_caption(one) for one in captions)
        best_first = sorted(
            zip(captions, said.matches, strict=True), key=lambda pair: -_margin(pair[1])
        )
        judged = [self._judged(one, found, job.filter) for one, found in best_first]
        return tuple(sorted(judged, key=lambda one: bool(one.rejected)))

    def _judged(self, said: Any, found: Any, rules: CaptionFilter) -> Caption:
        calibrated = self._calibrated(found, None).get("calibrated_probability")
        threshold = None if self.calibration is None else self.calibration.threshold
        why = reasons(said.text, Weight(found.itm_probability, calibrated), rules, threshold)
        return _caption(
            said,
            itm_probability=found.itm_probability,
            calibrated_probability=calibrated,
            rejected=bool(why),
            reject_reasons=why,
        )

    def _best_first(self, found: Sequence[Any], job: MatchJob) -> tuple[Match, ...]:
        matches = [
            Match(
                text=text,
                index=index,
                itm_probability=one.itm_probability,
                itm_logit=one.itm_logit,
                itc_cosine=one.itc_cosine,
                **self._calibrated(one, job.position_zero),
            )
            for index, (text, one) in enumerate(zip(job.texts, found, strict=True))
        ]
        return tuple(sorted(matches, key=lambda match: -match.score))

    def _ranking(self, found: Sequence[Any], job: RankJob) -> tuple[Ranked, ...]:
        ranked = [
            Ranked(
                index=index,
                text=text,
                itc_cosine=one.itc_cosine,
                itm_logit=one.match.itm_logit,
                itm_probability=one.match.itm_probability,
                score=one.match.itm_logit + one.itc_cosine,
                **self._calibrated(one.match, job.position_zero),
            )
            for index, (text, one) in enumerate(zip(job.texts, found, strict=True))
            if one.match is not None
        ]
        return tuple(sorted(ranked, key=lambda one: -one.score))

    def _calibrated(self, found: Any, position_zero: PositionZero | None) -> dict[str, Any]:
        calibration = self.calibration
        if calibration is None or calibration.position_zero != (
            position_zero or self.position_zero
        ):
            return {}
        probability = calibration.probability(_margin(found))
        return {
            "calibrated_probability": probability,
            "decision": calibration.decision(probability),
        }

    def _embedding(self, vector: Sequence[float], encoding: Any) -> Embedding:
        if self.matcher is None:
            raise RuntimeError("a vector came from no model")
        return Embedding.of(vector, encoding, self.matcher.id, self.matcher.revision)


def ranking_of_images(chunk: RankChunk, items: Sequence[ItemResult]) -> tuple[Ranked, ...]:
    """The k best images of a RankChunk by ITC, best first by score, from its settled items."""
    found = [(item, item.matches[0]) for item in items if item.matches]
    shortlist = sorted(found, key=lambda pair: -pair[1].itc_cosine)[: chunk.k]
    return tuple(
        Ranked(
            index=item.index,
            image_ref=item.image_ref,
            itc_cosine=match.itc_cosine,
            itm_logit=match.itm_logit,
            itm_probability=match.itm_probability,
            score=match.score,
            calibrated_probability=match.calibrated_probability,
            decision=match.decision,
        )
        for item, match in sorted(shortlist, key=lambda pair: -pair[1].score)
    )


def _margin(found: Any) -> float:
    """By how much the match logit is above the other: the log-odds of itm_probability."""
    no, yes = found.itm_logits
    return float(yes - no)


def _caption(found: Any, **weighed: Any) -> Caption:
    return Caption(
        text=found.text,
        tokens=tuple(found.tokens),
        token_logprobs=tuple(found.token_logprobs),
        processed_token_logprobs=tuple(found.processed_token_logprobs),
        logprob=found.logprob,
        mean_logprob=found.mean_logprob,
        score=found.score,
        finish_reason=found.finish_reason,
        seed=found.seed,
        count=found.count,
        **weighed,
    )
