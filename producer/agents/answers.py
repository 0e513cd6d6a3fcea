"""What tools answer: short, for who reads it pays by the word. Made of results; no I/O."""

import math

from pydantic import Field

from producer.contract import JobResult, Match, WordExplanation, WordsExplained
from producer.index.table import Hit
from producer.options import Model

LANGUAGE = "BCP 47, of the pack that answered; null is the model's own, English for BLIP"
CONFIDENCE = "0 to 1: the geometric mean of its tokens' probabilities"


class CaptionSaid(Model):
    """One caption."""

    text: str
    confidence: float = Field(description=CONFIDENCE)


class Captions(Model):
    """What the image shows, the best caption first."""

    caption: str = Field(description="The best caption")
    confidence: float = Field(description=CONFIDENCE)
    language: str | None = Field(description=LANGUAGE)
    others: list[CaptionSaid] = Field(description="Further captions, where more were asked for")

    @classmethod
    def of(cls, result: JobResult) -> "Captions":
        """The captions of a result that has some."""
        best, *others = [
            CaptionSaid(text=one.text, confidence=_share(one.mean_logprob))
            for one in result.captions or ()
        ]
        return cls(
            caption=best.text,
            confidence=best.confidence,
            language=_language(result),
            others=others,
        )


class TextFits(Model):
    """How well one text fits the image."""

    text: str
    probability: float = Field(
        description="0 to 1, that they belong together; calibrated where the model is, or else "
        "the matching head's, which is often too sure"
    )
    score: float = Field(description="What the texts are ordered by; no fixed scale")


class Matches(Model):
    """The texts, the one that fits best first."""

    best: str
    matches: list[TextFits]

    @classmethod
    def of(cls, result: JobResult) -> "Matches":
        """The matches of a result that has some."""
        found = [_fits(one) for one in result.matches or ()]
        return cls(best=found[0].text, matches=found)


class Word(Model):
    """Where the model looked for one word, in pixels of the image."""

    word: str
    probability: float | None = Field(description="Of the word, given those before it")
    peak: tuple[float, float] = Field(description="[x, y] of where it looked most")
    box: tuple[int, int, int, int] = Field(
        description="[left, top, right, bottom] round what holds half of its look"
    )


class Explained(Model):
    """One caption or text, word by word."""

    text: str
    words: list[Word]


class Explanations(Model):
    """Where the model looked."""

    width: int | None = Field(description="Of the image, in pixels")
    height: int | None
    language: str | None = Field(description=LANGUAGE)
    texts: list[Explained] = Field(description="The caption, or the texts that were given")

    @classmethod
    def of(cls, result: JobResult) -> "Explanations":
        """The explanations of an explain job's result, or of a caption job's."""
        found = result.explanations or tuple(
            one.explanation for one in result.captions or () if one.explanation is not None
        )
        return cls(
            width=result.image.width if result.image else None,
            height=result.image.height if result.image else None,
            language=_language(result),
            texts=[_explained(one) for one in found],
        )


class ImageFound(Model):
    """An image of the index."""

    image: str = Field(description="Its URI, as the other tools take it")
    caption: str | None
    similarity: float = Field(description="Cosine of image and query; compare within one search")


class ImagesFound(Model):
    """Images that show what was asked for, the nearest first."""

    images: list[ImageFound]

    @classmethod
    def of(cls, hits: list[Hit]) -> "ImagesFound":
        """The hits of a search."""
        return cls(
            images=[
                ImageFound(
                    image=hit.image_ref, caption=hit.caption, similarity=round(hit.itc_cosine, 4)
                )
                for hit in hits
            ]
        )


def _language(result: JobResult) -> str | None:
    return result.pack.language if result.pack else None


def _fits(one: Match) -> TextFits:
    sure = one.calibrated_probability
    return TextFits(
        text=one.text,
        probability=round(one.itm_probability if sure is None else sure, 4),
        score=round(one.score, 4),
    )


def _explained(one: WordsExplained) -> Explained:
    return Explained(text=one.text, words=[_word(word) for word in one.words])


def _word(word: WordExplanation) -> Word:
    x, y = word.peak
    return Word(
        word=word.text,
        probability=None if word.logprob is None else _share(word.logprob),
        peak=(round(x, 1), round(y, 1)),
        box=word.box,
    )


def _share(logprob: float) -> float:
    return float(f"{math.exp(logprob):.4g}")
