"""What is minimised: transformers' own caption loss, however a step is divided; hard negatives."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration

from tests.blip_checkpoints import load_quietly
from tests.finetuned import captions
from tests.tokenizer_stand_ins import xlm_roberta
from worker.blip.checkpoint import Checkpoint
from worker.blip.hub import resolve
from worker.blip.tokenizer import Tokenizer
from worker.training.finetune import texts
from worker.training.finetune.captioning import Captioning, CaptionRows
from worker.training.finetune.matching import Matching, MatchRows, _hard
from worker.training.finetune.model import load, recompute
from worker.training.finetune.pictures import FilePicture, Picture
from worker.training.finetune.rows import Row
from worker.training.finetune.settings import Settings

CPU = torch.device("cpu")


class Known:
    """Images after the ViT that a picture's name decides."""

    def of(self, pictures: list[Picture]) -> Tensor:
        drawn = [torch.Generator().manual_seed(int(picture.name)) for picture in pictures]
        return torch.stack([torch.randn(17, 64, generator=each) for each in drawn])


def rows_of(texts: list[str], images: list[int] | None = None) -> list[Row]:
    numbers = images or list(range(len(texts)))
    return [
        Row(str(i), FilePicture(Path(str(image)), str(image)), text)
        for i, (image, text) in enumerate(zip(numbers, texts, strict=True))
    ]


@pytest.fixture(scope="module")
def captioning(tiny: Path) -> Any:
    checkpoint = Checkpoint(resolve(tiny), ["caption"])
    trained = load(checkpoint, Settings())
    rows = rows_of(captions(8))
    tokens = texts.captions(trained.tokenizer, [row.caption for row in rows], 40)
    return Captioning(trained.model).train(), CaptionRows(rows, tokens, Known()), tokens


def test_the_loss_is_that_of_transformers_with_pads_ignored(captioning: Any, tiny: Path) -> None:
    module, rows, tokens = captioning
    every = torch.arange(8)
    ids, labels = tokens.some(every)
    reference = load_quietly(BlipForConditionalGeneration, tiny).text_decoder

    ours = module(**rows.batch(every, CPU)) * rows.weights([every], 1)[0]
    theirs = reference(
        input_ids=ids,
        attention_mask=(labels >= 0).long(),
        encoder_hidden_states=rows.batch(every, CPU)["images"],
        labels=labels,
    ).loss

    assert len(set(tokens.lengths.tolist())) > 1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("parts", [[8], [4, 4], [1, 7], [2, 2, 2, 2]])
def test_gradients_are_the_same_however_a_step_is_divided(
    parts: list[int], captioning: Any
) -> None:
    module, rows, _ = captioning

    def gradient(split: list[int]) -> Tensor:
        module.zero_grad()
        pieces = list(torch.split(torch.arange(8), split))
        for piece, weight in zip(pieces, rows.weights(pieces, 1), strict=True):
            (module(**rows.batch(piece, CPU)) * weight).backward()
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])

    torch.testing.assert_close(gradient(parts), gradient([8]), atol=1e-6, rtol=1e-4)


def test_gradient_checkpointing_changes_no_gradient(captioning: Any) -> None:
    module, rows, _ = captioning

    def gradient() -> Tensor:
        module.zero_grad()
        module(**rows.batch(torch.arange(8), CPU)).backward()
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])

    plain = gradient()
    runs: list[int] = []
    layer = module.model.text_decoder.bert.encoder.layer[0]
    hook = layer.intermediate.register_forward_hook(lambda *_: runs.append(1))
    recompute(module.model)
    try:
        assert gradient().equal(plain)
        assert len(runs) == 2
    finally:
        layers = module.model.text_decoder.bert.encoder.layer
        for each in layers:
            each.gradient_checkpointing = False
        hook.remove()


def test_gradient_checkpointing_changes_no_gradient_of_matching(matching: Any) -> None:
    module, tokenizer = matching
    given = match_rows(tokenizer, rows_of(captions(6))).batch(torch.arange(6), CPU)
    module.train()

    def gradient() -> Tensor:
        module.zero_grad()
        torch.manual_seed(0)
        module(**given).backward()
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])

    plain = gradient()
    recompute(module.model)
    try:
        assert gradient().equal(plain)
    finally:
        for each in module.model.text_encoder.encoder.layer:
            each.gradient_checkpointing = False


def test_a_caption_that_is_cut_is_not_taught_to_end(captioning: Any, tiny: Path) -> None:
    tokenizer = Checkpoint(resolve(tiny), ["caption"]).tokenizer

    tokens = texts.captions(tokenizer, ["word1 word2 word3 word4", "word1"], 4)

    assert tokens.cut == 1
    assert tokenizer.sep_id not in tokens.ids[0]
    assert tokens.ids[1].tolist()[:3] == [tokenizer.bos_id, *tokenizer.text("word1")[1:]]
    matched = texts.texts_to_match(tokenizer, ["word1 word2 word3 word4"], 4)
    assert matched.ids[0, -1] == tokenizer.sep_id
    assert matched.cut == 1


def test_words_that_the_tokenizer_does_not_know_are_counted(tiny: Path, tmp_path: Path) -> None:
    tokenizer = Checkpoint(resolve(tiny), ["caption"]).tokenizer
    taken_over = xlm_roberta()
    taken_over.save_pretrained(tmp_path)
    other = Tokenizer(tmp_path, {"vocab_size": len(taken_over)})

    assert texts.captions(tokenizer, ["红 色"], 40).unknown > 0.6
    assert texts.captions(tokenizer, ["word1"], 40).unknown == 0
    assert texts.captions(other, ["ж щ"], 40).unknown > 0.3


def test_a_hard_negative_is_never_right_and_is_mostly_what_looks_most_alike() -> None:
    torch.manual_seed(0)
    similarity = torch.tensor([[9.0, 5.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0], [0.0, 0.0, 9.0, 7.0]])
    right = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]], dtype=torch.bool)

    drawn = [_hard(similarity, right) for _ in range(200)]

    assert all(rows.tolist() == [0, 2] for rows, _ in drawn)  # the second row has none
    firsts = [hard[0].item() for _, hard in drawn]
    assert 0 not in firsts
    assert firsts.count(1) > 180
    assert all(hard[1] != 2 for _, hard in drawn)


@pytest.fixture(scope="module")
def matching(tiny: Path) -> Any:
    checkpoint = Checkpoint(resolve(tiny), ["match"])
    trained = load(checkpoint, Settings(task="match"))
    return Matching(trained.model, checkpoint.tokenizer.enc_id or 0), checkpoint.tokenizer


def match_rows(tokenizer: Any, rows: list[Row]) -> MatchRows:
    return MatchRows(rows, texts.texts_to_match(tokenizer, [r.caption for r in rows], 40), Known())


def test_right_pairs_come_first_and_captions_of_one_image_are_no_negatives(matching: Any) -> None:
    rows = rows_of(["word1", "word2", "word3", "word4"], [0, 1, 0, 1])
    rows[1] = Row("1", rows[1].picture, "word2", None, match=False)

    given = match_rows(matching[1], rows).batch(torch.arange(4), CPU)

    assert given["positives"] == 3
    assert given["equal"].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]
    assert given["ids"][:, 1].tolist() == [matching[1].text(f"word{i}")[1] for i in (1, 3, 4, 2)]


def test_a_caption_that_another_row_gives_an_image_is_never_wrong_for_it(matching: Any) -> None:
    # Image 0 is "word1" and "word2", image 1 "word2" too; the batch has one row of each.
    rows = match_rows(matching[1], rows_of(["word1", "word2", "word2"], [0, 0, 1]))

    given = rows.batch(torch.tensor([0, 2]), CPU)

    assert given["equal"].int().tolist() == [[1, 1], [0, 1]]
    assert [rows._another(row) for row in range(3)] == [0, 1, 0]  # 0 and 1 have no wrong one


@pytest.mark.parametrize("labels", [[1, 1, 1], [1, 0, 0], [0, 0, 0]])
def test_any_mixture_of_labels_has_a_loss_and_gradients(labels: list[int], matching: Any) -> None:
    module, tokenizer = matching
    rows = [
        Row(row.position, row.picture, row.caption, None, bool(label))
        for row, label in zip(rows_of(captions(3)), labels, strict=True)
    ]
    module.zero_grad()

    loss = module(**match_rows(tokenizer, rows).batch(torch.arange(3), CPU))
    loss.backward()

    assert loss.isfinite()
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    # Also of what has nothing to learn here: several processes wait for each other's gradients.
    assert all(parameter.grad is not None for parameter in trained.values())


def test_figures_without_labels_are_taken_with_other_captions(matching: Any) -> None:
    module, tokenizer = matching
    rows = match_rows(tokenizer, rows_of(captions(6)))
    alone = match_rows(tokenizer, rows_of(["word1"]))

    assert set(rows.figures(module, CPU, 4)) == {"loss", "auc"}
    assert set(alone.figures(module, CPU, 4)) == {"loss"}
