"""A WordPiece tokenizer for a language, from texts in it: case and accents kept, nothing lost.

Words are what stands between spaces; inside one, Chinese characters and punctuation are pieces of
their own, and letters are merged where they come together often (Schuster and Nakajima 2012, as for
BERT; the tokenizers library does it). Every piece of a word but the first carries "##", also after
an apostrophe or a Chinese character, so that the decoder writes "d'un" and "红色圆形" as they were.
Ids give back the text, in Unicode's NFC and with single spaces.
"""

import string
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]")
CONTINUES = "##"
ALPHABETS = {
    "ar": "ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىي،؛؟٠١٢٣٤٥٦٧٨٩",
    "de": "äöüßÄÖÜ„“‚‘",
    "fr": "àâæçéèêëîïôœùûüÿÀÂÆÇÉÈÊËÎÏÔŒÙÛÜŸ«»’",
    "zh": "，。、！？：；（）《》“”",
}
"""What a text in a language may hold beside ASCII, where the texts happen not to."""
ASCII = string.ascii_letters + string.digits + string.punctuation
MAX_WORD_CHARS = 1000
"""A longer word is [UNK]: a Chinese text without a space is one word."""
MAX_TOKENS = 512
_BATCH = 1000


def train(
    texts: Iterable[str], vocab_size: int = 8000, language: str | None = None
) -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary spells every text of `texts`.

    `vocab_size` counts the pieces that are learned, single characters among them; special tokens
    come on top, as do later forms of characters, and of pieces that words have after punctuation
    ("##un"). Fewer are learned where the texts have no more. Equal texts make equal tokenizers.

    Raises:
        ValueError: there is no text, or more different characters than `vocab_size`.
    """
    normalizer = normalizers.NFC()
    words = _words(texts, normalizer)
    if not words:
        raise ValueError("there is no text to learn from")
    alphabet = sorted(set(ASCII + ALPHABETS.get(_primary(language), "")).union(*words))
    if len(alphabet) > vocab_size:
        raise ValueError(
            f"the texts have {len(alphabet)} different characters: ask for more pieces"
        )
    pieces = _pieces(words, vocab_size, alphabet)
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}
    made = Tokenizer(
        models.WordPiece(
            vocabulary,
            unk_token="[UNK]",  # noqa: S106 - a word, not a secret
            continuing_subword_prefix=CONTINUES,
            max_input_chars_per_word=MAX_WORD_CHARS,
        )
    )
    made.normalizer = normalizer
    # A character that is not known is a word of its own, and costs its neighbours nothing.
    unknown = "[^" + "".join(rf"\x{{{ord(char):x}}}" for char in alphabet) + "]"
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(unknown), "isolated")]
    )
    made.decoder = decoder()
    cls, sep = (("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"]))
    made.post_processor = processors.BertProcessing(sep, cls)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        **dict(zip(_ROLES, SPECIAL, strict=False)),
        bos_token="[DEC]",  # noqa: S106
        extra_special_tokens=["[ENC]"],
        model_max_length=MAX_TOKENS,
    )


_ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


def decoder() -> decoders.Decoder:
    """Joins pieces: a space before each that begins a word but the first, none before "##"."""
    return decoders.Sequence(
        [
            decoders.Replace(Regex(f"^(?!{CONTINUES})"), " "),
            decoders.Replace(Regex(f"^{CONTINUES}"), ""),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )


def _primary(language: str | None) -> str:
    return (language or "").lower().partition("-")[0]


def _words(texts: Iterable[str], normalizer: Any) -> dict[str, int]:
    """The words of texts as often as they come, in the order in which they first do."""
    found: dict[str, int] = {}
    split = pre_tokenizers.WhitespaceSplit()
    for text in texts:
        for word, _ in split.pre_tokenize_str(normalizer.normalize_str(text)):
            found[word] = found.get(word, 0) + 1
    return found


def _pieces(words: dict[str, int], vocab_size: int, alphabet: Sequence[str]) -> list[str]:
    """Characters, first and later, then pieces learned, then later forms of first ones."""
    learner = Tokenizer(models.WordPiece({}, unk_token="[UNK]"))  # noqa: S106
    parts = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    learner.pre_tokenizer = parts
    learner.train_from_iterator(
        _batches(word for word, count in words.items() for _ in range(count)),
        trainers.WordPieceTrainer(
            vocab_size=vocab_size + 1 + len(alphabet),
            initial_alphabet=list(alphabet),
            continuing_subword_prefix=CONTINUES,
            # Later characters in a fixed order: the trainer's own is another each time, and decides
            # between pairs that come as often.
            special_tokens=["[UNK]", *(CONTINUES + char for char in alphabet)],
            show_progress=False,
        ),
    )
    learned = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    # What begins a part of a word that does not begin the word itself: "un" of "d'un".
    inside = {
        learner.encode(part).tokens[0]: None
        for word in words
        for part, _ in parts.pre_tokenize_str(word)[1:]
    }
    return [
        *alphabet,
        *(CONTINUES + char for char in alphabet),
        *(piece for piece, _ in learned if piece != "[UNK]"),
        *(CONTINUES + piece for piece in inside if piece != "[UNK]"),
    ]


def _batches(words: Iterator[str]) -> Iterator[list[str]]:
    while part := list(islice(words, _BATCH)):
        yield part


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, as AutoTokenizer reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
