"""How to caption: options by the names of transformers' GenerationConfig."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MAX_BEAMS = 10
_MIN_NEW_TOKENS = 5


@dataclass(frozen=True, kw_only=True)
class CaptionOptions:
    """Decoding options of one image; the defaults are the BLIP paper's (caption_coco.yaml).

    prompt               the caption continues it; str, or token ids. Not part of the result
    num_beams            1 is greedy search, 2..10 is beam search
    num_return_sequences captions per image, best first, at most num_beams
    min_new_tokens       [SEP] cannot come before this many tokens. None is 5, or max_new_tokens
                         where that is less; the attribute then holds that number
    max_new_tokens       generated tokens, the closing [SEP] included, the prompt excluded
    length_penalty       hypotheses are ranked by log-probability / length ** length_penalty
    early_stopping       True ends an image when num_beams hypotheses are complete, False when no
                         running beam looks better at its present length, "never" when none can
                         become better at all

    Raises ValueError, naming the option, for a value out of range.
    """

    prompt: str | Sequence[int] | None = None
    num_beams: int = 3
    num_return_sequences: int = 1
    min_new_tokens: int | None = None
    max_new_tokens: int = 20
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False

    def __post_init__(self) -> None:
        def require(condition: bool, sentence: str) -> None:
            if not condition:
                raise ValueError(sentence)

        def require_whole(name: str) -> None:
            value = getattr(self, name)
            require(type(value) is int, f"{name} must be a whole number, not {value}")

        for name in ("num_beams", "num_return_sequences", "max_new_tokens"):
            require_whole(name)
        fewest = self.min_new_tokens
        if fewest is None:
            fewest = min(_MIN_NEW_TOKENS, self.max_new_tokens)
            object.__setattr__(self, "min_new_tokens", fewest)  # frozen, but still being made
        require_whole("min_new_tokens")
        require(
            1 <= self.num_beams <= MAX_BEAMS,
            f"num_beams must be 1 to {MAX_BEAMS}, not {self.num_beams}",
        )
        require(
            1 <= self.num_return_sequences <= self.num_beams,
            f"num_return_sequences must be 1 to num_beams ({self.num_beams}), "
            f"not {self.num_return_sequences}",
        )
        require(
            self.max_new_tokens >= 1, f"max_new_tokens must be 1 or more, not {self.max_new_tokens}"
        )
        require(
            0 <= fewest <= self.max_new_tokens,
            f"min_new_tokens must be 0 to max_new_tokens ({self.max_new_tokens}), not {fewest}",
        )
        require(
            -10.0 <= self.length_penalty <= 10.0,
            f"length_penalty must be -10 to 10, not {self.length_penalty}",
        )
        require(
            isinstance(self.early_stopping, bool) or self.early_stopping == "never",
            f"early_stopping must be true, false or 'never', not {self.early_stopping!r}",
        )
