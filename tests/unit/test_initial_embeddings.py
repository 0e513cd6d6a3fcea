"""Where the word embeddings of a new tokenizer begin."""

import pytest
import torch

from worker.training import vocabulary, wordpiece
from worker.training.embeddings import initial_embeddings

OLD = vocabulary.tokenizer()
IDS = OLD.get_vocab()
EMBEDDINGS = torch.arange(len(IDS) * 4).reshape(-1, 4) ** 1.5
BIAS = torch.arange(len(IDS)) ** 0.5
PLAIN = slice(len(vocabulary.SPECIAL), None)


@pytest.mark.parametrize(
    ("piece", "covered"),
    [
        ("[DEC]", ["[DEC]"]),
        ("[PAD]", ["[PAD]"]),
        ("red", ["red"]),
        ("##k", ["##k"]),
        ("Triangle", ["tri", "##angle"]),
        ("grün", ["g", "##r", "##u", "##n"]),
        ("##un", ["u", "##n"]),
    ],
)
def test_given_a_piece_then_it_begins_as_itself_or_as_the_mean_of_what_it_covers(
    piece: str, covered: list[str]
) -> None:
    new = wordpiece.train(["red Triangle grün d'un"], language="fr")
    number = new.get_vocab()[piece]

    embeddings, bias = initial_embeddings(OLD, new, EMBEDDINGS, BIAS)

    ids = [IDS[one] for one in covered]
    assert torch.allclose(embeddings[number], EMBEDDINGS[ids].mean(0))
    assert torch.allclose(bias[number], BIAS[ids].mean())
    assert embeddings.shape == (len(new), 4)
    assert bias.shape == (len(new),)


@pytest.mark.parametrize("piece", ["دائرة", "weißem"])
def test_given_a_piece_that_the_old_one_cannot_spell_then_it_begins_as_the_mean_of_all(
    piece: str,
) -> None:
    new = wordpiece.train([piece])
    embeddings, bias = initial_embeddings(OLD, new, EMBEDDINGS, BIAS)
    number = new.get_vocab()[piece]
    assert torch.allclose(embeddings[number], EMBEDDINGS[PLAIN].mean(0))
    assert torch.allclose(bias[number], BIAS[PLAIN].mean())


def test_given_padded_embeddings_then_rows_without_a_piece_count_in_no_mean() -> None:
    new = wordpiece.train(["دائرة red"])
    padded = torch.cat((EMBEDDINGS, torch.full((30, 4), torch.nan)))
    found, _ = initial_embeddings(OLD, new, padded, torch.cat((BIAS, torch.zeros(30))))
    assert torch.allclose(found, initial_embeddings(OLD, new, EMBEDDINGS, BIAS)[0])


def test_given_a_tokenizer_without_a_special_token_then_it_is_named() -> None:
    known = wordpiece.train(["a"]).get_vocab()
    other = {"another" if piece == "[ENC]" else piece: number for piece, number in known.items()}
    with pytest.raises(ValueError, match=r"has no \[ENC\]"):
        initial_embeddings(OLD, _Named(other), EMBEDDINGS, BIAS)


def test_given_a_tokenizer_whose_ids_have_gaps_then_it_is_refused() -> None:
    known = wordpiece.train(["a"]).get_vocab()
    del known["a"]
    with pytest.raises(ValueError, match="ids have gaps"):
        initial_embeddings(OLD, _Named(known), EMBEDDINGS, BIAS)


class _Named:
    def __init__(self, vocab: dict[str, int]) -> None:
        self.get_vocab = lambda: vocab
