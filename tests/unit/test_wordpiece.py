"""Tokenizers trained for a language: what they spell, and that texts come back."""

import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from worker.blip.tokenizer import Tokenizer
from worker.cli import main
from worker.training import wordpiece
from worker.training.languages import LANGUAGES, caption
from worker.training.scenes import COMBINATIONS, sample
from worker.training.texts import read

PROSE = {
    "de": "Fußgänger überqueren die Straße, „öffnen“ Schirme – es regnet.",
    "fr": "L'été, où qu'elle naquît, l'œuvre (garçon, Noël) coûtait 5,50 €.",
    "zh": "照片里有一只 cat，坐在 blue sofa 上。2024年！",
    "ar": "صورةٌ لقطةٍ سوداءَ، على الأريكة؛ أليس كذلك؟",
}


def captions(language: str, count: int = 300) -> list[str]:
    rng = random.Random(f"tokens of {language}")
    return [caption(sample(rng, 1 + i % 2, COMBINATIONS), language) for i in range(count)]


def back(tokenizer: Any, text: str) -> str:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def saved(texts: list[str], folder: Path, **names: Any) -> Any:
    wordpiece.save(wordpiece.train(texts, **names), folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("language", LANGUAGES)
def test_given_texts_then_all_come_back_from_their_ids_also_once_saved(
    language: str, tmp_path: Path
) -> None:
    texts = [*captions(language), PROSE.get(language, "Don't: e-mail (a@b.c).")]
    tokenizer = saved(texts, tmp_path, language=language)
    assert [back(tokenizer, text) for text in texts] == texts


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=1, max_size=5))
def test_given_any_unicode_texts_then_they_come_back_in_nfc_with_single_spaces(
    texts: list[str],
) -> None:
    # What a space is, Unicode's property says; Python counts four separators of ASCII among them.
    plain = [" ".join(unicodedata.normalize("NFC", _spaced(text)).split()) for text in texts]
    tokenizer = wordpiece.train(["a", *texts])
    assert [back(tokenizer, _spaced(text)) for text in texts] == plain


def _spaced(text: str) -> str:
    return text.translate(dict.fromkeys(range(0x1C, 0x20), " "))


@pytest.mark.parametrize(
    ("language", "text", "pieces"),
    [
        ("de", "ein großes Dreieck", ["ein", "großes", "Dreieck"]),
        ("fr", "d'une étoile", ["d", "##'", "##une", "étoile"]),
        ("zh", "一个红色圆", ["一", "##个", "##红", "##色", "##圆"]),
        ("ar", "نجمة خضراء", ["نجمة", "خضراء"]),
    ],
)
def test_given_a_caption_then_words_are_whole_and_chinese_is_in_characters(
    language: str, text: str, pieces: list[str]
) -> None:
    assert wordpiece.train(captions(language)).tokenize(text) == pieces


def test_given_a_language_then_its_whole_alphabet_is_spelt_whatever_the_texts_hold() -> None:
    text = "Ägypten ÖL süß"
    assert back(wordpiece.train(["ein Kreis"], language="de-CH"), text) == text


def test_given_an_unknown_character_then_only_itself_is_unknown() -> None:
    tokenizer = wordpiece.train(captions("zh"))
    assert tokenizer.tokenize("红☃色") == ["红", "[UNK]", "色"]


def test_given_equal_texts_then_tokenizers_are_equal() -> None:
    """Not so by itself: the library's trainer decides between equal counts by chance."""
    first, *others = [wordpiece.train(captions("de")).get_vocab() for _ in range(5)]
    assert all(other == first for other in others)


def test_given_few_pieces_then_words_are_spelt_in_several() -> None:
    tokenizer = wordpiece.train(captions("de"), vocab_size=150)
    assert len(tokenizer.tokenize("türkisfarbener")) > 1
    assert back(tokenizer, "türkisfarbener") == "türkisfarbener"


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        ([], 100, "no text to learn from"),
        ([" ", "\n"], 100, "no text to learn from"),
        (["Ж"], 94, "95 different characters"),
    ],
)
def test_given_nothing_to_learn_from_then_it_is_said(
    texts: list[str], size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        wordpiece.train(texts, vocab_size=size)


def test_given_a_trained_tokenizer_then_the_engine_reads_it(tmp_path: Path) -> None:
    made = saved(captions("fr"), tmp_path)
    tokenizer = Tokenizer(tmp_path, {"vocab_size": len(made)})
    special = (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id)
    assert special == (0, 2, 3)
    assert (tokenizer.bos_id, tokenizer.enc_id) == (5, 6)
    text = "un petit cercle au-dessus d'une étoile"
    assert tokenizer.decode(tokenizer.text(text)) == text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "ein Kreis\n\n  ein Ring \n"),
        ("a.csv", "image,caption\n1.png,ein Kreis\n2.png,\n3.png,ein Ring\n"),
        (
            "odd.jsonl",
            (
                '{"text": "ein Kreis"}\n{"text": "no", "language": 5}\n{"text": "\\ud83d"}\n'
                '{"text": "ein Ring"}\n'
            ),
        ),
        ("a.jsonl", '{"text": "ein Kreis"}\n{"text": null}\n{"text": "ein Ring"}\n'),
        (
            "b.jsonl",
            (
                '{"caption": "ein Kreis", "language": "de"}\n{"caption": "un", "language": "fr"}\n'
                '{"caption": "ein Ring", "language": "de"}\n'
            ),
        ),
    ],
)
def test_given_texts_in_a_file_or_a_manifest_then_they_are_read(
    name: str, content: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    assert list(read(tmp_path / name, language="de")) == ["ein Kreis", "ein Ring"]


def test_given_the_command_then_it_writes_a_tokenizer_or_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("\n".join(captions("ar")))
    output = tmp_path / "made"
    arguments = ["captionq-worker", "train-tokenizer", str(tmp_path / "a.txt"), "-o", str(output)]
    monkeypatch.setattr("sys.argv", [*arguments, "--language", "ar"])
    with pytest.raises(SystemExit, match="0"):
        main()
    size = len(AutoTokenizer.from_pretrained(output))
    assert capsys.readouterr().out == f"{size} pieces, written to {output}\n"
    monkeypatch.setattr("sys.argv", [*arguments, "--vocab-size", "5"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "different characters: ask for more pieces" in capsys.readouterr().err
