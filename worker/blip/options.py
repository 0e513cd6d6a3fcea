"""How to caption: options by the names of transformers' GenerationConfig."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MAX_BEAMS = 10
MAX_SEED = 2**53 - 1  # the largest whole number that every JSON reader keeps exact
MAX_PHRASES = 64
MAX_PHRASE_CHARS = 64
_MIN_NEW_TOKENS = 5
_NUM_BEAMS = 3
_FOLLOWS: Any = None  # what the other options make of it
_SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": None}


@dataclass(frozen=True, kw_only=True)
class CaptionOptions:
    """Decoding options of one image; the defaults are REFERENCE.

    Search
    prompt               the caption continues it; str, or token ids. Not part of the result
    prefix               the caption begins with it, after the prompt; str, or token ids. Part of
                         the text, but neither of the tokens nor of their scores and limits
    num_beams            1 is greedy search, 2..10 is beam search. None is 3, or 1 with do_sample
    num_return_sequences captions per image, best first: at most num_beams; with do_sample the
                         samples drawn, 1..10, of which equal ones are returned once
    length_penalty       hypotheses are ranked by log-probability / length ** length_penalty
    early_stopping       True ends an image when num_beams hypotheses are complete, False when no
                         running beam looks better at its present length, "never" when none can
                         become better at all

    Length
    min_new_tokens       [SEP] cannot come before this many tokens. None is 5, or max_new_tokens
                         where that is less; the attribute then holds that number
    max_new_tokens       generated tokens, the closing [SEP] included, prompt and prefix excluded
    whole_words          a caption that max_new_tokens cuts loses the word that did not fit, all its
                         pieces included, unless that is its only one: one token more is looked at
    max_chars            characters of the text, the prefix included: a caption that grows longer
                         ends there and loses the word that did not fit, all its pieces included
    stop_strings         a caption ends with the token that completes one of these in what is
                         generated; it is part of the text, as in transformers

    Words
    repetition_penalty   of tokens seen, prompt and [DEC] included (Keskar et al. 2019); 1 is none
    no_repeat_ngram_size no n tokens come twice, prompt included; 0 is off
    bad_words            words and phrases (str) that no words of the caption spell, in whatever
                         pieces; or sequences of token ids, as transformers' bad_words_ids

    Sampling, each of which needs do_sample
    do_sample            draw each token from the distribution instead of searching
    temperature          logits are divided by it, before the next three
    top_k                keep the k likeliest tokens (Fan et al. 2018); 0 is off
    top_p                keep the likeliest tokens that reach this mass (Holtzman et al. 2020)
    min_p                drop tokens below this part of the likeliest's probability (Nguyen 2024)
    seed                 0..2**53-1, alone determines the samples; None draws one, see Caption.seed

    Raises ValueError, naming the option, for a value out of range.
    """

    prompt: str | Sequence[int] | None = None
    prefix: str | Sequence[int] | None = None
    num_beams: int = _FOLLOWS
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    min_new_tokens: int | None = None
    max_new_tokens: int = 20
    whole_words: bool = False
    max_chars: int | None = None
    stop_strings: Sequence[str] = ()
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words: Sequence[str | Sequence[int]] = ()
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None

    @property
    def num_samples(self) -> int:
        """Samples drawn per image: num_return_sequences with do_sample, else 1."""
        return self.num_return_sequences if self.do_sample else 1

    @property
    def steps(self) -> int:
        """Tokens that are generated at most, that included which tells whether a word goes on."""
        return self.max_new_tokens + self.whole_words

    @property
    def width(self) -> int:
        """Token sequences decoded side by side for the image: its beams, or its samples."""
        return max(self.num_beams, self.num_samples)

    def __post_init__(self) -> None:
        self._fill_in()
        for name in ("num_beams", "num_return_sequences", "min_new_tokens", "max_new_tokens"):
            self._require_whole(name)
        for name in ("no_repeat_ngram_size", "top_k"):
            self._require_whole(name)
        self._check_counts()
        self._check_words()
        self._check_sampling()

    def _fill_in(self) -> None:
        """Replace each None that stands for "as the other options say"."""
        beams: Any = self.num_beams
        if beams is None:
            self._set("num_beams", 1 if self.do_sample else _NUM_BEAMS)
        if self.min_new_tokens is None:
            fewest = self.max_new_tokens
            # Anything but a number is complained about by its own check.
            fewest = min(_MIN_NEW_TOKENS, fewest) if isinstance(fewest, int) else fewest
            self._set("min_new_tokens", fewest if fewest is not None else _MIN_NEW_TOKENS)
        for name in ("stop_strings", "bad_words"):
            value = getattr(self, name)
            several = isinstance(value, Iterable) and not isinstance(value, str)
            _require(several, f"{name} is a list of texts, not one text: {value!r}")
            lists = (tuple(one) if isinstance(one, list) else one for one in value)
            self._set(name, tuple(lists))

    def _check_counts(self) -> None:
        beams, captions, most = self.num_beams, self.num_return_sequences, self.max_new_tokens
        _require(1 <= beams <= MAX_BEAMS, f"num_beams must be 1 to {MAX_BEAMS}, not {beams}")
        _require(type(self.do_sample) is bool, f"do_sample must be true or false: {self.do_sample}")
        _require(
            not self.do_sample or beams == 1, f"do_sample takes num_beams 1, not {beams}: no search"
        )
        limit, called = (MAX_BEAMS, "") if self.do_sample else (beams, f"num_beams ({beams})")
        _require(
            1 <= captions <= limit,
            f"num_return_sequences must be 1 to {called or limit}, not {captions}",
        )
        _require(most >= 1, f"max_new_tokens must be 1 or more, not {most}")
        _require(
            type(self.whole_words) is bool, f"whole_words must be true or false: {self.whole_words}"
        )
        _require(
            self.min_new_tokens is not None and 0 <= self.min_new_tokens <= most,
            f"min_new_tokens must be 0 to max_new_tokens ({most}), not {self.min_new_tokens}",
        )
        self._require_between("length_penalty", -10.0, 10.0)
        _require(
            isinstance(self.early_stopping, bool) or self.early_stopping == "never",
            f"early_stopping must be true, false or 'never', not {self.early_stopping!r}",
        )
        if self.max_chars is not None:
            self._require_whole("max_chars")
            _require(self.max_chars >= 1, f"max_chars must be 1 or more, not {self.max_chars}")

    def _check_words(self) -> None:
        self._require_between("repetition_penalty", 0.01, 100.0)
        size = self.no_repeat_ngram_size
        _require(size >= 0, f"no_repeat_ngram_size must be 0 (off) or more, not {size}")
        for name in ("stop_strings", "bad_words"):
            given = getattr(self, name)
            _require(len(given) <= MAX_PHRASES, f"{name} holds at most {MAX_PHRASES} texts")
            for phrase in given:
                kind = "texts of 1" if name == "stop_strings" else "texts or token ids of 1"
                _require(
                    _is_text(phrase, name == "bad_words")
                    or (name == "bad_words" and _are_token_ids(phrase)),
                    f"{name} holds {kind} to {MAX_PHRASE_CHARS}, not {phrase!r}",
                )

    def _check_sampling(self) -> None:
        self._require_between("temperature", 0.01, 100.0)
        self._require_between("top_p", 0.0, 1.0)
        self._require_between("min_p", 0.0, 1.0)
        _require(self.top_k >= 0, f"top_k must be 0 (off) or more, not {self.top_k}")
        if self.seed is not None:
            self._require_whole("seed")
            _require(0 <= self.seed <= MAX_SEED, f"seed must be 0 to 2**53 - 1, not {self.seed}")
        if not self.do_sample:
            for name, without in _SAMPLING.items():
                _require(getattr(self, name) == without, f"{name} needs do_sample")

    def _require_whole(self, name: str) -> None:
        value = getattr(self, name)
        _require(type(value) is int, f"{name} must be a whole number, not {value}")

    def _require_between(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _require(
            number and math.isfinite(value) and low <= value <= high,
            f"{name} must be {low:g} to {high:g}, not {value}",
        )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # frozen, but still being made


def _is_text(phrase: object, of_words: bool) -> bool:
    return (
        isinstance(phrase, str)
        and 1 <= len(phrase) <= MAX_PHRASE_CHARS
        and (bool(phrase.strip()) or not of_words)
    )


def _are_token_ids(phrase: object) -> bool:
    return (
        isinstance(phrase, Sequence)
        and 1 <= len(phrase) <= MAX_PHRASE_CHARS
        and all(type(token_id) is int for token_id in phrase)
    )


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)


REFERENCE = CaptionOptions()
"""BLIP's reference decoding (Li et al. 2022; caption_coco.yaml): 3 beams, 5 to 20 tokens."""
