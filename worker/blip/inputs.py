"""Texts as the text stack takes them: token ids of a vocabulary, no more than it has positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from worker.blip.attention import Row
from worker.blip.errors import InputError
from worker.blip.options import CaptionOptions
from worker.blip.results import Caption
from worker.blip.text_cache import TokenIds
from worker.blip.tokenizer import Text, Tokenizer


@dataclass(frozen=True)
class Inputs:
    """Reads texts with one tokenizer. Raises InputError for what the model can never take."""

    tokenizer: Tokenizer
    max_positions: int

    def prompt(self, options: CaptionOptions) -> list[int]:
        """What a caption by these options begins with, [DEC] first; the options are checked."""
        prompt = self.tokenizer.prompt(options.prompt, options.prefix)
        self._check_length(len(prompt) + options.max_new_tokens, "prompt and max_new_tokens")
        self.tokenizer.check(options)
        return prompt

    def text(self, text: Text) -> TokenIds:
        """[CLS], the text's tokens, [SEP]."""
        token_ids = tuple(self.tokenizer.text(text))
        self._check_length(len(token_ids), "a text")
        return token_ids

    def caption_row(self, caption: Caption | Text, options: CaptionOptions) -> Row:
        """What the decoder reads: [DEC], the prompt, and from `start` on prefix and caption."""
        tokenizer = self.tokenizer
        start = len(tokenizer.prompt(options.prompt))
        before = tokenizer.prompt(options.prompt, options.prefix)
        if isinstance(caption, Caption):
            text, own = caption.text, caption.token_ids
        else:  # a text ends in [SEP], which explains itself as a token that is no word
            own = tokenizer.text(caption)[1:]
            text = tokenizer.decode([*before[start:], *own])
        self._check_length(len(before) + len(own), "a caption and its prompt")
        return Row(text, (*before, *own), start, len(before) + len(own))

    def match_row(self, text: Text, first: int | None) -> Row:
        """What the matching encoder reads; [CLS], or what stands for it, and [SEP] are left out."""
        ids = self.text(text)
        read = ids if first is None else (first, *ids[1:])
        shown = text if isinstance(text, str) else self.tokenizer.decode(text)
        return Row(shown, read, 1, len(read) - 1)

    def position_zero(self, choice: Literal["enc", "cls"] | None) -> int | None:
        """The id that replaces [CLS] for ITM, or None."""
        enc_id = self.tokenizer.enc_id
        if choice not in (None, "enc", "cls"):
            raise ValueError(f"position_zero must be 'enc' or 'cls', not {choice!r}")
        if choice == "enc" and enc_id is None:
            raise ValueError("position_zero='enc', but the checkpoint's tokenizer has no [ENC]")
        return None if choice == "cls" else enc_id

    def _check_length(self, tokens: int, what: str) -> None:
        if tokens > self.max_positions:
            raise InputError(
                f"{what}: {tokens} tokens, the model has {self.max_positions} positions"
            )


def texts_read(per_image: Sequence[Sequence[Text]], inputs: Inputs) -> list[list[TokenIds]]:
    """Each image's texts as token ids; a list that is of several images is read once."""
    rows = {id(row): row for row in per_image}
    read = {key: [inputs.text(text) for text in row] for key, row in rows.items()}
    return [read[id(row)] for row in per_image]
