"""What an engine does with words, by tokenizers of other kinds than the published one.

Random checkpoints write a mixture of all languages, in pieces: more than any real one would.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.blip_checkpoints import TINY, edit_config, noise_images, write_random_checkpoint
from tests.tokenizer_stand_ins import KINDS, TEXTS
from worker.blip import Caption, CheckpointError, Engine
from worker.blip.spelling import INSIDE, JOINED, Spelling, ends_word, unspaced
from worker.blip.words import spans

IMAGES = noise_images(16)
WAYS: list[dict[str, Any]] = [
    {"num_beams": 1},
    {"num_beams": 3, "num_return_sequences": 3},
    {"do_sample": True, "num_return_sequences": 4, "seed": 2},
]


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(
        write(KINDS[request.param](), tmp_path_factory.mktemp(request.param)), tasks=["caption"]
    )


def write(tokenizer: Any, folder: Path) -> Path:
    """A random checkpoint with this tokenizer, which never says a special token but the last."""
    shape = replace(TINY, vocab_size=len(tokenizer))
    write_random_checkpoint(folder, shape, seed=6, spread=1.5)
    (folder / "tokenizer.json").unlink()
    tokenizer.save_pretrained(folder)
    edit_config(
        folder,
        "text_config",
        pad_token_id=tokenizer.pad_token_id,
        sep_token_id=tokenizer.sep_token_id,
        bos_token_id=tokenizer.convert_tokens_to_ids("[DEC]"),
    )
    file = folder / "model.safetensors"
    state = load_file(file)
    special = {*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(["[DEC]", "[ENC]"])}
    bias = torch.zeros(len(tokenizer))
    bias[list(special)] = -20
    bias[tokenizer.sep_token_id] = 3
    state["text_decoder.cls.predictions.bias"] = bias
    save_file(state, file, metadata={"format": "pt"})
    return folder


def captions(engine: Engine, **names: Any) -> list[Caption]:
    return [c for row in engine.caption(IMAGES, max_new_tokens=14, **names) for c in row]


def words(text: str) -> list[str]:
    """Runs of letters; Chinese characters one by one."""
    return re.findall(r"[\u4e00-\u9fff]|(?:(?![\u4e00-\u9fff])\w)+", text)


@pytest.mark.parametrize("text", TEXTS)
def test_given_a_prompt_in_any_language_then_it_is_read_and_shown_as_it_is(
    engine: Engine, text: str
) -> None:
    tokenizer = engine._tokenizer
    shown = tokenizer.decode(tokenizer.prompt(text))
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", text)


def test_given_a_vocabulary_then_its_texts_are_what_its_tokenizer_decodes(engine: Engine) -> None:
    tokenizer = engine._tokenizer
    first, later = tokenizer.vocabulary.texts
    random = torch.Generator().manual_seed(0)
    for _ in range(300):
        token_ids = torch.randint(tokenizer.vocab_size, (7,), generator=random).tolist()
        text = ""
        for token_id in token_ids:
            text += later[token_id] if text else first[token_id]
        assert text.strip() == tokenizer.decode(token_ids)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_given_banned_words_then_no_spelling_of_them_is_in_any_caption(
    engine: Engine, way: dict[str, Any]
) -> None:
    free = captions(engine, **way)
    said = [word for caption in free for word in words(caption.text)]
    chinese = {word for word in said if "\u4e00" <= word <= "\u9fff"}
    common = [*sorted(set(said), key=said.count)[-30:], *chinese]
    assert any(len(word) > 1 for word in common)
    assert chinese

    for caption in captions(engine, bad_words=common, **way):
        assert not set(words(caption.text)) & set(common)


def test_given_a_banned_word_then_others_still_come(engine: Engine) -> None:
    free = captions(engine, num_beams=1)
    word = next(w for c in free for w in words(c.text) if len(w) > 1)
    banned = captions(engine, num_beams=1, bad_words=[word])
    same = [a.text == b.text for a, b in zip(free, banned, strict=True)]
    assert not all(same)
    assert all(kept for kept, c in zip(same, free, strict=True) if word not in c.text)


def test_given_a_banned_phrase_of_two_words_then_one_alone_may_come(engine: Engine) -> None:
    letter = r"[^\W\u4e00-\u9fff]"
    pair = re.compile(rf"(?<![\w#])({letter}+) ({letter}+)(?!\w)")
    found = [pair.search(caption.text) for caption in captions(engine, **WAYS[2])]
    chosen = [one for one in found if one][:5]
    alone = 0
    for match in chosen:
        banned = captions(engine, bad_words=[match[0]], **WAYS[2])
        said = " | ".join(caption.text for caption in banned)
        assert not re.search(rf"(?<!\w){match[0]}(?!\w)", said)
        alone += bool(re.search(rf"(?<!\w)({match[1]}|{match[2]})(?!\w)", said))
    assert alone


@pytest.mark.parametrize("way", [WAYS[0], {"do_sample": True, "seed": 2}], ids=str)
def test_given_stop_strings_then_a_caption_ends_with_the_token_that_completes_the_first(
    engine: Engine, way: dict[str, Any]
) -> None:
    free = captions(engine, **way)
    stops = [free[0].text[2:4], free[1].text[-4:-1], "色", "never this"]
    ended = 0
    for caption, whole in zip(captions(engine, stop_strings=stops, **way), free, strict=True):
        counts = range(1, len(whole.token_ids) + 1)
        texts = [engine._tokenizer.decode(whole.token_ids[:n]) for n in counts]
        at = [n for n, text in zip(counts, texts, strict=True) if any(s in text for s in stops)]
        ended += bool(at)
        assert caption.token_ids == whole.token_ids[: at[0] if at else None]
    assert ended > 1


@pytest.mark.parametrize("most", [3, 8, 17])
def test_given_most_characters_then_captions_end_with_a_whole_word_within_them(
    engine: Engine, most: int
) -> None:
    found = captions(engine, num_beams=1, max_chars=most)
    for caption, whole in zip(found, captions(engine, num_beams=1), strict=True):
        assert len(caption.text) <= most
        assert whole.text.startswith(caption.text)
        after = whole.text[len(caption.text) :]
        # What follows is a space, or a letter of a script without spaces.
        assert not caption.text or not after or after[0] == " " or unspaced(after[0])
    assert any(caption.text for caption in found) or most == 3


def test_given_chinese_then_each_piece_is_a_word_and_punctuation_is_the_words_before(
    engine: Engine,
) -> None:
    """BERT's punctuation is a word of its own; SentencePiece's pieces may be several characters."""
    tokenizer = engine._tokenizer
    token_ids = tokenizer.text("小的，圆 cat")[1:-1]
    shown = [
        tokenizer.decode(token_ids[first : last + 1])
        for first, last in spans(token_ids, tokenizer.vocabulary)
    ]
    words = [text for text in shown if text and text != "，"]
    assert [word.removesuffix("，") for word in words] in (
        ["小", "的", "圆", "cat"], ["小的", "圆", "cat"]
    )  # fmt: skip


def test_given_a_text_when_explained_then_its_words_are_those_between_spaces(
    engine: Engine,
) -> None:
    text = "roter Kreis d'un"
    [[explained]] = engine.explain(IMAGES[0], [[text]])
    said = "".join(word.text for word in explained.words)
    assert said == text.replace(" ", "")
    assert [word.text for word in explained.words if word.text][:2] == ["roter", "Kreis"]


class Model:
    """A backend model without a prefix, as SentencePiece's."""


@pytest.mark.parametrize(
    ("pieces", "word", "expected"),
    [
        (["▁cat", "▁c", "at", "cat", "▁"], "▁cat", {
            (0, "▁cat", 4), (0, "▁c", 2), (2, "at", 4), (JOINED, "cat", 4), (1, "cat", 4),
            (0, "▁", 1)}),
        (["▁", "'un", "'u", "n,", "▁un,", "un-", "under,"], "▁un", {
            (0, "▁", 1), (INSIDE, "'un", 3), (INSIDE, "'u", 2), (2, "n,", 3), (0, "▁un,", 3),
            (JOINED, "un-", 3), (1, "un-", 3)}),
        (["▁", "的红", "的红色", "红色圆", "色圆", "▁红色圆"], "▁红色", {
            (0, "▁", 1), (INSIDE, "的红", 2), (INSIDE, "的红色", 3), (JOINED, "红色圆", 3),
            (1, "红色圆", 3), (2, "色圆", 3), (0, "▁红色圆", 3)}),
    ],
)  # fmt: skip
def test_given_pieces_with_a_space_marked_then_each_is_found_wherever_it_spells_a_word(
    pieces: list[str], word: str, expected: set[tuple[int, str, int]]
) -> None:
    spelling = Spelling(Model(), {piece: number for number, piece in enumerate(pieces)})
    assert {(start, pieces[i], end) for start, i, end in spelling.of(word)} == expected


def test_given_a_character_then_it_is_known_whether_a_word_goes_on_after_it() -> None:
    assert [char for char in "aß9é红あก' -،ة\u0301" if ends_word(char)] == list("红あก' -،")


def test_given_a_tokenizer_that_marks_neither_then_it_is_refused() -> None:
    """As GPT-2's, whose pieces are bytes."""
    with pytest.raises(CheckpointError, match="marks neither pieces that continue a word"):
        Spelling(Model(), {"a": 0, "Ġa": 1})


def test_given_each_kind_then_it_is_what_transformers_loads(tmp_path: Path) -> None:
    for name, make in KINDS.items():
        made = make()
        made.save_pretrained(tmp_path / name)
        loaded = AutoTokenizer.from_pretrained(tmp_path / name)
        assert [loaded.tokenize(text) for text in TEXTS] == [made.tokenize(text) for text in TEXTS]
