"""Tokenizers of the kinds there are, small: as of cased BERT, of XLM-R, and our own for a language.

Each has [DEC] and [ENC], and is trained on TEXTS in few pieces, so that words are spelt in several.
"""

from collections.abc import Callable
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, XLMRobertaTokenizer

from worker.training import wordpiece

TEXTS = (
    "ein kleiner roter Kreis, links von einem großen blauen Quadrat (auf weißem Grund).",
    "un petit cercle rouge à gauche d'un grand carré bleu; l'étoile n'est qu'une étoile",
    "白色背景上，一个小的红色圆形在一个大的蓝色正方形的左边。红 cat 和 blue 圆",
    "دائرة حمراء صغيرة على يسار مربع أزرق كبير على خلفية بيضاء",
)
PIECES = 260


def cased_bert(texts: tuple[str, ...] = TEXTS, size: int = PIECES) -> Any:
    """As bert-base-multilingual-cased has it: WordPiece, accents and case kept."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    later = [f"##{char}" for char in sorted(set("".join("".join(texts).split())))]
    learner = Tokenizer(models.WordPiece({}, unk_token="[UNK]"))
    learner.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[*special, *later], show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    return _with_tasks(BertTokenizer(vocab=learner.get_vocab(), do_lower_case=False))


def xlm_roberta(texts: tuple[str, ...] = TEXTS) -> Any:
    """As xlm-roberta-base has it: SentencePiece's unigram model, special tokens of other names.

    Its pieces are made up, not learned: the library's trainer makes others each time. Some hold the
    end of one word and the beginning of the next, as "'u" does.
    """
    words = [word for text in texts for word in text.split()]
    pieces = [word[at : at + 2] for word in words for at in range(1, len(word), 3)]
    pieces += [f"▁{word[:2]}" for word in words[::2]] + [f"▁{word}" for word in words[::5]]
    chosen = dict.fromkeys(["▁", *sorted(set("".join(words))), *pieces])
    vocab = [(piece, -2.0 if len(piece) == 1 else -1.0) for piece in chosen]
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    return _with_tasks(XLMRobertaTokenizer(vocab=[*special, *vocab, ("<mask>", 0.0)]))


def language(texts: tuple[str, ...] = TEXTS, size: int = PIECES) -> Any:
    """As `captionq-worker train-tokenizer` makes it."""
    return wordpiece.train(texts, size)


def _with_tasks(tokenizer: Any) -> Any:
    tokenizer.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)
    return tokenizer


KINDS: dict[str, Callable[[], Any]] = {
    "cased_bert": cased_bert,
    "xlm_roberta": xlm_roberta,
    "language": language,
}
