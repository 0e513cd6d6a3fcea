"""Text to token ids and back, with the special ids that the checkpoint itself states."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from worker.blip.errors import CheckpointError, InputError
from worker.blip.options import CaptionOptions
from worker.blip.vocabulary import Vocabulary

Text = str | Sequence[int]


class Tokenizer:
    """A checkpoint's tokenizer, WordPiece or SentencePiece.

    bos_id ([DEC]) starts a caption, sep_id ([SEP]) ends it, cls_id ([CLS]) starts a text to match;
    enc_id ([ENC]) may take its place for ITM, and is None where the tokenizer has none.
    last_id is the highest that a text may become.
    The published `text_config.eos_token_id` (2) is not what ends a caption and is not read.
    """

    def __init__(self, folder: Path, text_config: Mapping[str, Any]) -> None:
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as exc:
            raise CheckpointError("the checkpoint's tokenizer cannot be read") from exc
        vocabulary = self._tokenizer.get_vocab()

        def special(name: str, key: str | None, token: str | None) -> int:
            stated = text_config.get(key) if key else None
            known = vocabulary.get(name, vocabulary.get(token))
            if stated is None and known is None:
                raise CheckpointError(f"neither config.json nor the tokenizer has {name}")
            if stated is not None and known is not None and stated != known:
                raise CheckpointError(
                    f"{name} is {stated} in config.json and {known} in the tokenizer"
                )
            found = known if stated is None else stated
            if not isinstance(found, int) or not 0 <= found < text_config["vocab_size"]:
                raise CheckpointError(f"{name} ({found}) is outside the vocabulary")
            return found

        self.pad_id = special("[PAD]", "pad_token_id", self._tokenizer.pad_token)
        self.sep_id = special("[SEP]", "sep_token_id", self._tokenizer.sep_token)
        self.cls_id = special("[CLS]", None, self._tokenizer.cls_token)
        self.bos_id = special("[DEC]", "bos_token_id", "[DEC]")
        self.enc_id = special("[ENC]", None, "[ENC]") if "[ENC]" in vocabulary else None
        self.vocab_size: int = text_config["vocab_size"]
        self.last_id: int = max(vocabulary.values())
        self.vocabulary = Vocabulary(self._tokenizer, self.vocab_size)
        self._starts = {self.cls_id, self.bos_id, self.enc_id}

    def prompt(self, prompt: Text | None, prefix: Text | None = None) -> list[int]:
        """[DEC], the prompt's tokens and the prefix's."""
        return [self.bos_id, *self._content(prompt or []), *self.prefix(prefix)]

    def prefix(self, prefix: Text | None) -> list[int]:
        """The tokens that a caption begins with."""
        return self._content(prefix or [])

    def prefix_text(self, prefix: Text | None) -> str:
        """The words that a caption begins with."""
        return self.decode(self.prefix(prefix)) if prefix else ""

    def text(self, text: Text) -> list[int]:
        """[CLS], the text's tokens, [SEP]."""
        return [self.cls_id, *self._content(text), self.sep_id]

    def stop_strings(self, stop_strings: Sequence[str]) -> list[str]:
        """As the tokenizer would read them; what it would not read at all cannot occur."""
        read = [self.vocabulary.shown(text) for text in stop_strings]
        return [text for text in read if text]

    def continues_word(self, token_ids: Sequence[int]) -> bool:
        """Whether the first of these ids that a text shows is a later piece of a word."""
        shown = (i for i in token_ids if not self.vocabulary.silent[i])
        return next((self.vocabulary.continues(i) for i in shown), False)

    def check(self, row: CaptionOptions) -> None:
        """Raises InputError for banned ids outside the vocabulary, a prefix above max_chars."""
        for phrase in row.bad_words:
            if not isinstance(phrase, str):
                self._check_ids(phrase)
        length = len(self.prefix_text(row.prefix))
        if row.max_chars is not None and length > row.max_chars:
            raise InputError(f"prefix: {length} characters, max_chars is {row.max_chars}")

    def decode(self, token_ids: Sequence[int]) -> str:
        """Words, without special tokens."""
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True)).strip()

    def tokens(self, token_ids: Sequence[int]) -> list[str]:
        """The vocabulary's entry of each id; an id that the tokenizer does not name is [UNUSED]."""
        names = self._tokenizer.convert_ids_to_tokens(list(token_ids))
        return [name if isinstance(name, str) else "[UNUSED]" for name in names]

    def _check_ids(self, token_ids: Sequence[int]) -> None:
        if any(not 0 <= token_id < self.vocab_size for token_id in token_ids):
            raise InputError(f"token ids must be 0 to {self.vocab_size - 1}")

    def _content(self, text: Text) -> list[int]:
        """Token ids without the special tokens around them; ids are taken with or without these."""
        if isinstance(text, str):
            encoded = self._tokenizer(text, add_special_tokens=False)
            return [int(token_id) for token_id in encoded["input_ids"]]
        token_ids = [int(token_id) for token_id in text]
        self._check_ids(token_ids)
        while token_ids and token_ids[-1] == self.pad_id:
            token_ids.pop()
        if token_ids and token_ids[-1] == self.sep_id:
            token_ids.pop()
        if token_ids and token_ids[0] in self._starts:
            del token_ids[0]
        return token_ids


def texts_per_image(
    texts: str | Sequence[Text] | Sequence[Sequence[Text]], images: int
) -> list[list[Text]]:
    """A text or a list of texts for all images, or one list per image; always one list per image.

    A lone text is a str: a list of token ids alone is not told from a list of texts.
    """
    rows: list[Any] = [texts] if isinstance(texts, str) else list(texts)
    if all(_is_text(text) for text in rows):
        return [rows for _ in range(images)]
    if any(isinstance(row, str) or not all(_is_text(text) for text in row) for row in rows):
        raise ValueError("texts is one list for all images, or one list per image")
    if len(rows) != images:
        raise ValueError(f"{len(rows)} lists of texts for {images} images")
    return [list(row) for row in rows]


def _is_text(value: Any) -> bool:
    """A str, or a sequence whose first item is an integer."""
    return isinstance(value, str) or (
        hasattr(value, "__len__") and len(value) > 0 and hasattr(value[0], "__index__")
    )
