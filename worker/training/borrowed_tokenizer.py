"""The tokenizer of another model, such as mBERT's or XLM-R's, as a decoder of captions needs it."""

from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

ADDED = ("[DEC]", "[ENC]")
# What BERT calls a Chinese character, and the punctuation that Chinese puts after one.
_HAN = (
    r"\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2CEAF}"
    r"\x{2F800}-\x{2FA1F}"
)
_ENDS = "，。、！？：；）》」』”’"
_ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


def borrowed(folder: Path) -> Any:
    """The tokenizer of a folder with [DEC] and [ENC] after all its pieces.

    Chinese of a WordPiece tokenizer comes back without spaces; the pieces are the same. Others are
    as they are.

    Raises:
        ValueError: there is none, or it lacks a special token.
    """
    try:
        made: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as exc:
        raise ValueError(f"{folder} has no tokenizer that transformers reads") from exc
    missing = [role for role in _ROLES if getattr(made, role) is None]
    if missing:
        raise ValueError(f"the tokenizer of {folder} has no {', '.join(missing)}")
    if isinstance(made.backend_tokenizer.normalizer, normalizers.BertNormalizer):
        made = _without_chinese_spaces(made)
    made.add_tokens(list(ADDED), special_tokens=True)
    return made


def _without_chinese_spaces(tokenizer: Any) -> PreTrainedTokenizerFast:
    """BERT's puts spaces round each Chinese character in its normaliser, and they stay."""
    backend = tokenizer.backend_tokenizer
    given = backend.normalizer
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=given.clean_text,
        handle_chinese_chars=False,
        strip_accents=given.strip_accents,
        lowercase=given.lowercase,
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(f"[{_HAN}]"), "isolated"), pre_tokenizers.BertPreTokenizer()]
    )
    prefix = backend.model.continuing_subword_prefix
    backend.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix=prefix),
            decoders.Replace(Regex(f"^ (?=[{_HAN}{_ENDS}])"), ""),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=tokenizer.model_max_length,
        **{role: getattr(tokenizer, role) for role in _ROLES},
    )
