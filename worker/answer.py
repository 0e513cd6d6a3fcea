"""What the models said to one job, in the contract's words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from producer.contract import (
    Caption,
    CaptionJob,
    Embedding,
    EmbedJob,
    ErrorCode,
    ExplainJob,
    ImageJob,
    ItemResult,
    Match,
    MatchJob,
    ModelFacts,
    Preview,
    RankChunk,
    Ranked,
    RankJob,
    RegionCaptions,
    WordsExplained,
)
from producer.filtering import CaptionFilter
from producer.language import PackFacts, space_of
from producer.queues import model_task
from worker.caption_filter import Weight, reasons
from worker.caption_style import once, styled
from worker.errors import Fault
from worker.maps import Explained, inline_cells, maps_uri, words_explained
from worker.packs.answering import NO_PACKS, Answering

if TYPE_CHECKING:
    from worker.blip.placement import PlacedGrid
    from worker.calibration import Calibration

__all__ = ["Answer", "Interpreter", "Looked", "PositionZero", "ranking_of_images"]

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
    pack: PackFacts | None = None
    match_pack: PackFacts | None = None
    explanations: tuple[WordsExplained, ...] | None = None
    preview: Preview | None = None
    explained: Any = Field(None, exclude=True)
    """Explained, or None: what of it is for a file, not for a result."""

    @property
    def fields(self) -> dict[str, Any]:
        """What there is, by the names of `JobResult`'s fields."""
        return {name: value for name, value in self if value is not None and name != "explained"}


@dataclass(frozen=True)
class Looked:
    """What was said of one image: captions, or matches, or how each caption matches; where it lies
    (a unit vector); and where the model looked for the words of each."""

    captions: Sequence[Any]
    matches: Sequence[Any] = ()
    vector: Sequence[float] | None = None
    explanations: Sequence[Any] | None = None


@dataclass(frozen=True)
class Interpreter:
    """Turns what engines said into answers.

    Args:
        matcher: which weights match and embed; None where none do.
        position_zero: what their ITM reads its answer from where a job does not say.
        calibration: of their scores, where there is one.
        language: of the checkpoints, BCP 47.
        packs: those that answer in their place.
    """

    matcher: ModelFacts | None = None
    position_zero: PositionZero = "enc"
    calibration: "Calibration | None" = None
    language: str = "en"
    packs: Answering = NO_PACKS

    @property
    def calibrated(self) -> bool:
        """Whether filters can ask for a calibrated probability."""
        calibration = self.calibration
        return calibration is not None and calibration.position_zero == self.position_zero

    def adapted(self, task: str, packs: Answering) -> "Interpreter":
        """For a job of this task that packs answered. The calibration is of the checkpoint: it says
        nothing of a pack's matches."""
        if packs is NO_PACKS:
            return self
        matching = packs.weigher if model_task(task) == "caption" else packs.pack
        calibration = self.calibration if matching is None else None
        return replace(self, packs=packs, calibration=calibration)

    def answer(
        self, job: ImageJob, said: Sequence[Any], placed: "PlacedGrid | None" = None
    ) -> Answer:
        """The answer to a job, from what was said of each item of it, in their order.

        placed: its image, for what is explained.
        """
        answer = self._answer(job, said, placed)
        if self.packs is not NO_PACKS:
            own = {"pack": self.packs.facts, "match_pack": self.packs.weigher_facts}
            answer = answer.model_copy(update=own)
        explained = [one for part in said for one in getattr(part, "explanations", None) or ()]
        if placed is not None and explained:
            return answer.model_copy(update={"explained": Explained(explained, placed)})
        return answer

    def _answer(self, job: ImageJob, said: Sequence[Any], placed: "PlacedGrid | None") -> Answer:
        match job:
            case CaptionJob():
                return self._captions(job, said, placed)
            case MatchJob():
                return Answer(matches=self._best_first(said, job, placed))
            case ExplainJob():
                found = zip(job.texts, said[0].explanations, strict=True)
                words = [_words(job, n, one, text, placed) for n, (text, one) in enumerate(found)]
                return Answer(explanations=tuple(one for one in words if one))
            case RankJob():
                return Answer(ranking=self._ranking(said[0], job))
            case EmbedJob():
                vectors = [vector for part in said for vector in part]
                return Answer(embeddings=tuple(self._embedding(v, job.encoding) for v in vectors))

    def _captions(
        self, job: CaptionJob, said: Sequence[Looked], placed: "PlacedGrid | None"
    ) -> Answer:
        rows = [self._row(job, one, placed) for one in said]
        abstained = None
        if job.filter is not None:
            abstained = all(caption.rejected for row in rows for caption in row)
        embeddings = None
        if job.embed is not None:
            embeddings = tuple(self._embedding(one.vector or (), job.embed) for one in said)
        if job.regions is None:
            return Answer(captions=rows[0], embeddings=embeddings, abstained=abstained)
        regions = tuple(
            RegionCaptions(box=box, captions=row)
            for box, row in zip(job.regions, rows, strict=True)
        )
        return Answer(regions=regions, embeddings=embeddings, abstained=abstained)

    def _row(
        self, job: CaptionJob, said: Looked, placed: "PlacedGrid | None"
    ) -> tuple[Caption, ...]:
        if not said.captions:  # no token was likelier than another
            raise Fault(ErrorCode.INTERNAL_ERROR, "no caption: the model's numbers are not finite")
        explanations = said.explanations or [None] * len(said.captions)
        explained = [
            _words(job, number, found, one.text, placed)
            for number, (one, found) in enumerate(zip(said.captions, explanations, strict=True))
        ]
        if job.filter is None:
            plain = zip(said.captions, explained, strict=True)
            return _distinct(
                job, [_caption(one, self._text(job, one), explanation=why) for one, why in plain]
            )
        best_first = sorted(
            zip(said.captions, said.matches, explained, strict=True),
            key=lambda row: -row[1].itm_margin,
        )
        judged = [self._judged(one, found, job, words) for one, found, words in best_first]
        return _distinct(job, sorted(judged, key=lambda one: bool(one.rejected)))

    def _judged(
        self, said: Any, found: Any, job: CaptionJob, explanation: WordsExplained | None
    ) -> Caption:
        rules = job.filter or CaptionFilter()
        calibrated = self._calibrated(found, None).get("calibrated_probability")
        threshold = None if self.calibration is None else self.calibration.threshold
        why = reasons(said.text, Weight(found.itm_probability, calibrated), rules, threshold)
        return _caption(
            said,
            self._text(job, said),
            itm_probability=found.itm_probability,
            calibrated_probability=calibrated,
            rejected=bool(why),
            reject_reasons=why,
            explanation=explanation,
        )

    def _text(self, job: CaptionJob, said: Any) -> str:
        """A caption's text in the style that was asked for."""
        pack, options = self.packs.pack, job.options
        language = (pack and pack.language) or self.language
        cut, prefixed = said.finish_reason == "length", bool(options.prefix)
        return styled(said.text, options.style, language, cut=cut, prefixed=prefixed)

    def _best_first(
        self, said: Sequence[Looked], job: MatchJob, placed: "PlacedGrid | None"
    ) -> tuple[Match, ...]:
        found = [one for part in said for one in part.matches]
        explained = [one for part in said for one in part.explanations or ()]
        words = explained or [None] * len(found)
        matches = [
            Match(
                text=text,
                index=index,
                itm_probability=one.itm_probability,
                itm_logit=one.itm_logit,
                itc_cosine=one.itc_cosine,
                explanation=_words(job, index, why, text, placed),
                **self._calibrated(one, job.position_zero),
            )
            for index, (text, one, why) in enumerate(zip(job.texts, found, words, strict=True))
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
        probability = calibration.probability(found.itm_margin)
        return {
            "calibrated_probability": probability,
            "decision": calibration.decision(probability),
        }

    def _embedding(self, vector: Sequence[float], encoding: Any) -> Embedding:
        if self.matcher is None:
            raise RuntimeError("a vector came from no model")
        return Embedding.of(vector, encoding, self.matcher.id, self._space)

    @property
    def _space(self) -> str:
        """The revision of the space that vectors lie in: those beside captions are the
        checkpoint's own."""
        matching = self.packs.pack is not None and self.packs.pack.task == "match"
        revision = self.matcher.revision if self.matcher else ""
        return space_of(revision, self.packs.facts if matching else None)


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


def _words(
    job: CaptionJob | MatchJob | ExplainJob,
    number: int,
    found: Any,
    text: str,
    placed: "PlacedGrid | None",
) -> WordsExplained | None:
    if found is None or placed is None:
        return None
    return words_explained(found, text, placed, maps_uri(job, number), inline_cells(job))


def _distinct(job: CaptionJob, captions: Sequence[Caption]) -> tuple[Caption, ...]:
    """Captions; those that a style has made equal once."""
    if job.options.style is None:
        return tuple(captions)
    return tuple(
        one if one.count == count else one.model_copy(update={"count": count})
        for one, count in once(captions)
    )


def _caption(found: Any, text: str, **weighed: Any) -> Caption:
    return Caption(
        text=text,
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
