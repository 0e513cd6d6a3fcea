"""The bundled checkpoint's WordPiece vocabulary and tokenizer (BERT's kind, lower-casing)."""

import json
import string
from pathlib import Path

from transformers import BertTokenizer

from worker.training.scenes import BACKGROUNDS, COLOURS, KINDS, RELATIONS, SIZES

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]")
PROMPT = "a picture of"
# One word of the scene language is in two pieces, so that code that joins pieces is exercised.
PIECES = {"triangle": ("tri", "##angle")}


def words() -> tuple[str, ...]:
    """The vocabulary, in id order: special tokens, scene words, then every ASCII character.

    Each letter and digit is there as a first piece and as a later one and each punctuation mark
    as a word, so that no ASCII text becomes [UNK].
    """
    phrases = (PROMPT, "on", *RELATIONS, *SIZES, *COLOURS, *KINDS, *BACKGROUNDS)
    language = [piece for p in phrases for word in p.split() for piece in PIECES.get(word, (word,))]
    letters = string.ascii_lowercase + string.digits
    characters = [*letters, *(f"##{letter}" for letter in letters), *string.punctuation]
    return tuple(dict.fromkeys((*SPECIAL, *language, *characters)))


def tokenizer() -> BertTokenizer:
    """The tokenizer over `words()`; [DEC] begins a caption, [ENC] an image-grounded text."""
    return BertTokenizer(
        vocab={word: index for index, word in enumerate(words())},
        do_lower_case=True,
        bos_token="[DEC]",  # noqa: S106 - a word, not a secret
        additional_special_tokens=["[ENC]"],
        model_max_length=64,
    )


def save(directory: Path) -> None:
    """Writes vocab.txt, tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    made = tokenizer()
    made.save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(words()) + "\n")
    named = {
        "bos_token": "[DEC]",
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "additional_special_tokens": ["[ENC]"],
    }
    (directory / "special_tokens_map.json").write_text(json.dumps(named, indent=2) + "\n")
