"""How a caption is to be decoded, as a job says it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Model(BaseModel):
    """Frozen, strict, closed to unknown fields and to the numbers JSON cannot carry."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


_Phrase = Annotated[str, Field(min_length=1, max_length=64)]
# Each costs the worker time and memory by its length, before the first token.
_Stop = Annotated[str, Field(min_length=1, max_length=32)]
_ONLY_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed")

Style = Literal["alt_text", "short", "long"]

STYLES: Mapping[Style | None, Mapping[str, Any]] = {
    "alt_text": {"max_new_tokens": 40, "max_chars": 125},
    "short": {"min_new_tokens": 3, "max_new_tokens": 10},
    "long": {"min_new_tokens": 20, "max_new_tokens": 50, "no_repeat_ngram_size": 3},
}
"""What a style sets in place of the usual defaults. 125 characters is the length that guidelines
give for alternative texts, for some screen readers pause there."""


def default_of(name: str, usual: Any, style: Style | None) -> Any:
    """What an option is where it is not given, in a style.

    >>> default_of("max_new_tokens", 20, "short"), default_of("max_new_tokens", 20, None)
    (10, 20)
    """
    return STYLES.get(style, {}).get(name, usual)


class CaptionOptions(Model):
    """How to decode, by the names of transformers' GenerationConfig.

    The default is the reference decoding of BLIP (3 beams, 5 to 20 tokens; caption_coco.yaml). A
    style sets other defaults (STYLES); what is given besides holds.
    """

    style: Style | None = Field(
        None,
        description="alt_text: for a screen reader: at most 125 characters, without 'a picture "
        "of', its first letter a capital; short: 3 to 10 tokens; long: 20 to 50, no three of "
        "which come twice. All end cleanly: no 'and', 'with a' or comma is left over",
    )
    do_sample: bool = Field(False, description="Draw each token instead of searching")
    num_beams: int = Field(
        default_factory=lambda valid: 1 if valid["do_sample"] else 3,
        ge=1,
        le=10,
        description="1 is greedy search. 3, or 1 with do_sample, when absent",
    )
    num_return_sequences: int = Field(
        1,
        ge=1,
        le=10,
        description="Captions, at most num_beams; with do_sample the samples drawn, equal ones "
        "returned once",
    )
    max_new_tokens: int = Field(
        default_factory=lambda valid: default_of("max_new_tokens", 20, valid["style"]),
        ge=1,
        le=511,
        description="20, or the style's, when absent",
    )
    min_new_tokens: int = Field(
        default_factory=lambda valid: min(
            default_of("min_new_tokens", 5, valid["style"]), valid["max_new_tokens"]
        ),
        ge=0,
        le=511,
        description="5, or the style's, or max_new_tokens where that is less, when absent",
    )
    max_chars: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default_factory=lambda valid: default_of("max_chars", None, valid["style"]),
        description="The text ends with a whole word within as many; 125 for alt_text, when absent",
    )
    stop_strings: tuple[_Stop, ...] = Field(
        (), max_length=4, description="The text ends with the first of these to be generated"
    )
    length_penalty: float = Field(1.0, ge=-10, le=10)
    early_stopping: bool | Literal["never"] = False
    prompt: str | None = Field(
        None, max_length=1_000, description='Words the caption continues, e.g. "a picture of"'
    )
    prefix: str | None = Field(
        None, max_length=1_000, description="Words the caption begins with, and keeps"
    )
    repetition_penalty: float = Field(
        1.0, ge=0.01, le=100, description="Of tokens seen, the prompt's included; 1 is none"
    )
    no_repeat_ngram_size: int = Field(
        default_factory=lambda valid: default_of("no_repeat_ngram_size", 0, valid["style"]),
        ge=0,
        le=511,
        description="No so many tokens come twice; 0 is off. 3 for long, else 0, when absent",
    )
    bad_words: tuple[_Phrase, ...] = Field(
        (), max_length=64, description="Words and phrases that are not in the caption"
    )
    temperature: float = Field(1.0, ge=0.01, le=100)
    top_k: int = Field(0, ge=0, description="Draw from the k likeliest tokens; 0 is off")
    top_p: float = Field(1.0, ge=0, le=1, description="Draw from the likeliest of this mass")
    min_p: float = Field(
        0.0, ge=0, le=1, description="Draw none below this part of the likeliest's probability"
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=2**53 - 1,
        description="Alone determines the samples; drawn, and said in the result, when absent",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens is above max_new_tokens")
        if self.do_sample and self.num_beams > 1:
            raise ValueError("do_sample takes num_beams 1: there is no search")
        if not self.do_sample and self.num_return_sequences > self.num_beams:
            raise ValueError("num_return_sequences is above num_beams")
        for name in _ONLY_SAMPLING:
            field = type(self).model_fields[name]
            if not self.do_sample and getattr(self, name) != field.default:
                raise ValueError(f"{name} needs do_sample")
        if any(not phrase.strip() for phrase in self.bad_words):
            raise ValueError("bad_words holds a text without words")
        return self
