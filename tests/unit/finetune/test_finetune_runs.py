"""Whole runs: what they learn and what they write."""

import json
import random
import warnings
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from accelerate.state import AcceleratorState
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import BlipForConditionalGeneration

from tests.blip_checkpoints import (
    load_quietly,
    noise_images,
    pixel_values,
)
from tests.blip_packs import own_tokenizer
from tests.finetuned import captions, finetune, losses, request, write_pairs
from worker.blip import Engine
from worker.blip.pack_card import read_card


def said(engine: Engine, images: list[Image.Image], **options: Any) -> list[str]:
    rows = engine.caption(images, num_beams=1, min_new_tokens=0, max_new_tokens=12, **options)
    return [captions[0].text for captions in rows]


@pytest.fixture(scope="module")
def learned(tiny: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that knows its twelve pairs by heart."""
    output = tmp_path_factory.mktemp("learned") / "learned"
    finetune(request(pairs, output, tiny, steps=150, batch=12, language="de"))
    return output


def test_a_pack_learns_its_captions_by_heart_and_the_engine_says_them(
    learned: Path, tiny: Path
) -> None:
    engine = Engine.load(tiny, tasks=["caption"])
    images = noise_images(12)

    assert said(engine, images, packs=engine.load_pack(learned)) == captions(12)
    assert said(engine, images) != captions(12)


def test_peft_loads_the_files_and_says_what_the_engine_says(learned: Path, tiny: Path) -> None:
    model = load_quietly(BlipForConditionalGeneration, tiny)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        adapted = PeftModel.from_pretrained(model, str(learned)).eval()
    engine = Engine.load(tiny, tasks=["caption"])
    unseen = noise_images(6, seed=99)

    ids = adapted.generate(pixel_values=pixel_values(tiny, unseen), max_new_tokens=12, num_beams=1,
                           do_sample=False)  # fmt: skip

    texts = engine._tokenizer
    expected = [texts.decode(row[: row.index(102)] if 102 in row else row) for row in ids.tolist()]
    assert said(engine, unseen, packs=engine.load_pack(learned)) == expected


def test_a_pack_is_lora_alone_with_cards_for_programs_and_people(learned: Path) -> None:
    names = set(load_file(learned / "adapter_model.safetensors"))
    card = read_card(learned)

    assert {path.name for path in learned.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "pack.json",
    }  # fmt: skip
    assert all(".lora_" in name for name in names)
    # two layers, each with q, k, v, output of both attentions and the MLP's two; A and B
    assert len(names) == 2 * 10 * 2
    assert not any("vision" in name for name in names)
    assert (card.name, card.task, card.language) == ("learned", "caption", "de")
    assert card.training["peak_memory_mib"] > 0
    assert card.training["seconds"] > 0
    assert card.data["rows"] == 12
    readme = (learned / "README.md").read_text()
    assert "language: de" in readme
    assert f"peak_memory_mib: {card.training['peak_memory_mib']:,}" in readme


def with_bad_image(folder: Path) -> Path:
    manifest = write_pairs(folder, captions(6))
    (folder / "2.png").write_bytes(b"no image")
    return manifest


@pytest.mark.parametrize("cache_gib", [1.0, 0.0])
def test_an_image_that_cannot_be_read_is_named_and_the_run_goes_on_or_ends(
    cache_gib: float, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = with_bad_image(tmp_path / "data")

    card = finetune(request(manifest, tmp_path / "run", tiny, cache_gib=cache_gib))

    assert card.data["rows"] == 5
    assert card.data["left_out"] == 1
    assert "left out 2.png: image_unsupported_format" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"2\.png: image_unsupported_format"):
        finetune(request(manifest, tmp_path / "strict", tiny, cache_gib=cache_gib, strict=True))


def test_images_encoded_once_and_when_they_are_needed_teach_the_same(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    for name, gib in (("kept", 1.0), ("live", 0.0)):
        finetune(request(pairs, tmp_path / name, tiny, cache_gib=gib))

    kept, live = (
        torch.tensor([row["loss"] for row in losses(tmp_path / name)]) for name in ("kept", "live")
    )
    torch.testing.assert_close(kept, live, atol=1e-4, rtol=1e-4)


def test_an_early_stop_keeps_the_best_and_says_when_it_was(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    asked = request(pairs, tmp_path / "run", tiny, steps=80, rate=5e-2, warmup=0.0,
                    validation=0.4, validate_every=2, patience=3)  # fmt: skip

    card = finetune(asked)

    figures = {row["step"]: row["validation_loss"] for row in losses(asked.output)
               if "validation_loss" in row}  # fmt: skip
    best = min(figures, key=figures.__getitem__)
    assert card.training["steps"] == best + 6 < 80
    assert card.training["best_step"] == best
    assert card.training["validation_loss"] == figures[best]
    assert card.training["validation_loss"] == min(figures.values())
    assert card.training["seconds"] > 0


def test_a_run_of_its_own_tokenizer_trains_its_words_and_the_engine_writes_them(
    tiny: Path, tmp_path: Path
) -> None:
    own_tokenizer(120).save_pretrained(tmp_path / "words")
    texts = [f"äpfel wort{i} über wort{(i * 7) % 20}" for i in range(8)]
    manifest = write_pairs(tmp_path / "data", texts, language=["de"] * 8)
    asked = request(manifest, tmp_path / "pack", tiny, tokenizer=tmp_path / "words", steps=200,
                    batch=8, rate=2e-2)  # fmt: skip

    card = finetune(asked)

    engine = Engine.load(tiny, tasks=["caption"])
    pack = engine.load_pack(tmp_path / "pack")
    rows = engine.caption(noise_images(8), packs=pack, num_beams=1, min_new_tokens=0,
                          max_new_tokens=30)  # fmt: skip
    assert [row[0].text for row in rows] == texts
    state = load_file(tmp_path / "pack" / "adapter_model.safetensors")
    prefix = "base_model.model.text_decoder."
    assert state[f"{prefix}bert.embeddings.word_embeddings.weight"].shape == (120, 64)
    assert state[f"{prefix}cls.predictions.bias"].shape == (120,)
    assert card.language == "de"
    assert (tmp_path / "pack" / "tokenizer.json").exists()


@pytest.mark.parametrize("words", [False, True])
def test_a_full_run_writes_a_checkpoint_that_the_engine_and_transformers_load(
    words: bool, tiny: Path, tmp_path: Path
) -> None:
    texts = captions(8)
    given: dict[str, Any] = {}
    if words:
        own_tokenizer(120).save_pretrained(tmp_path / "words")
        texts = [f"wort{i} wort{(i * 7) % 20}" for i in range(8)]
        given = {"tokenizer": tmp_path / "words"}
    manifest = write_pairs(tmp_path / "data", texts)

    finetune(request(manifest, tmp_path / "full", tiny, full=True, steps=200, batch=8, rate=2e-3,
                     **given))  # fmt: skip

    engine = Engine.load(tmp_path / "full")
    assert said(engine, noise_images(8)) == texts
    before, after = (load_file(p / "model.safetensors") for p in (tiny, tmp_path / "full"))
    if words:  # matching cannot read with them
        before = {
            n: t for n, t in before.items() if n.startswith(("vision_model.", "text_decoder."))
        }
    assert before.keys() == after.keys()
    same = {name for name in before if before[name].equal(after[name])}
    assert same == {name for name in before if not name.startswith("text_decoder.")}
    load_quietly(BlipForConditionalGeneration, tmp_path / "full")


def test_matching_trains_its_heads_and_tells_labelled_pairs_apart(
    tiny: Path, tmp_path: Path
) -> None:
    texts, rng = captions(12), random.Random(0)
    wrong = [rng.choice([t for t in texts if t != text]) for text in texts]
    manifest = write_pairs(tmp_path / "data", texts)
    with manifest.open("a") as file:
        for number, text in enumerate(wrong):
            row = {"image": f"{number}.png", "caption": text, "match": "false"}
            file.write(json.dumps(row) + "\n")

    card = finetune(request(manifest, tmp_path / "pack", tiny, task="match", steps=150, batch=24))

    engine = Engine.load(tiny, tasks=["match"])
    pack = engine.load_pack(tmp_path / "pack")
    asked = [[right, other] for right, other in zip(texts, wrong, strict=True)]
    found = engine.match(noise_images(12), asked, pack=pack)
    assert all(right.itm_probability > 0.9 > 0.1 > other.itm_probability for right, other in found)
    names = set(load_file(tmp_path / "pack" / "adapter_model.safetensors"))
    heads = {f"base_model.model.{head}.{part}" for head in ("itm_head", "vision_proj", "text_proj")
             for part in ("weight", "bias")}  # fmt: skip
    assert heads == {name for name in names if ".lora_" not in name}
    assert card.task == "match"
    assert card.data["labelled_false"] == 12


def test_bfloat16_and_gradient_checkpointing_train_as_well(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    plain = request(pairs, tmp_path / "plain", tiny)
    lean = request(pairs, tmp_path / "lean", tiny, bf16=True, gradient_checkpointing=True)
    finetune(plain)
    AcceleratorState._reset_state(reset_partial_state=True)
    finetune(lean)

    ends = [losses(run.output)[-1]["loss"] for run in (plain, lean)]
    assert ends[0] != ends[1]
    assert ends[1] == pytest.approx(ends[0], rel=0.2)


def test_a_datasets_folder_is_trained_on_and_its_validation_split_validated_on(
    tiny: Path, tmp_path: Path
) -> None:
    made = datasets.Dataset.from_dict(
        {"image": noise_images(6), "text": captions(6)},
        features=datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")}),
    )
    splits = {"train": made.select(range(4)), "validation": made.select(range(4, 6))}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "set"))

    card = finetune(request(tmp_path / "set", tmp_path / "pack", tiny))

    assert (card.data["rows"], card.data["validation_rows"]) == (4, 2)
    assert card.training["validation_loss"] > 0
    assert (tmp_path / "pack" / "adapter_model.safetensors").exists()
