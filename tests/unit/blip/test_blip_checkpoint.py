"""What a checkpoint must have, and the one clear sentence when it has not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.blip_checkpoints import drop_tensors, edit_config, noise_images, to_pickle
from worker.blip import CheckpointError, Engine


def caption_ids(engine: Engine) -> list[list[int]]:
    return [row[0].token_ids for row in engine.caption(noise_images(4))]


def edit_preprocessor(folder: Path, **values: object) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def only_tensorflow(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "tf_model.h5").write_bytes(b"")


def evil_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"vision_model.x": print}, folder / "pytorch_model.bin")


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def broken_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("[]")


def missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"vision_model.x": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def shard_outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = {"weight_map": {"vision_model.x": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


REFUSED: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "no text head count",
        lambda f: edit_config(f, "text_config", num_attention_heads=None),
        "does not state text_config.num_attention_heads",
    ),
    (
        "no vision head count",
        lambda f: edit_config(f, "vision_config", num_attention_heads=None),
        "does not state vision_config.num_attention_heads",
    ),
    ("another model", lambda f: edit_config(f, None, model_type="blip-2"), "'blip-2', not 'blip'"),
    (
        "a head count in words",
        lambda f: edit_config(f, "text_config", num_attention_heads="twelve"),
        "'twelve', not a positive whole number",
    ),
    ("two means", lambda f: edit_preprocessor(f, image_mean=[0.5, 0.5]), "not three numbers"),
    ("no such filter", lambda f: edit_preprocessor(f, resample=17), "no PIL filter"),
    ("no text config", lambda f: edit_config(f, None, text_config=None), "no text_config"),
    (
        "another activation",
        lambda f: edit_config(f, "text_config", hidden_act="quick_gelu"),
        "hidden_act",
    ),
    (
        "heads that do not divide",
        lambda f: edit_config(f, "text_config", num_attention_heads=7),
        "not a multiple",
    ),
    (
        "more layers",
        lambda f: edit_config(f, "text_config", num_hidden_layers=3),
        "lacks the tensor",
    ),
    ("another width", lambda f: edit_config(f, "vision_config", intermediate_size=8), "do not fit"),
    ("ids that disagree", lambda f: edit_config(f, "text_config", sep_token_id=7), r"\[SEP\] is 7"),
    (
        "question answering",
        lambda f: edit_config(f, None, architectures=["BlipForQuestionAnswering"]),
        "question-answering",
    ),
    ("no decoder head", lambda f: drop_tensors(f, "text_decoder.cls"), "lacks text_decoder.cls"),
    ("no ITM head", lambda f: drop_tensors(f, "itm_head"), "lacks itm_head, which match needs"),
    ("no projection", lambda f: drop_tensors(f, "text_proj"), "lacks text_proj"),
    ("no ViT", lambda f: drop_tensors(f, "vision_model"), "lacks vision_model"),
    (
        "one tensor less",
        lambda f: drop_tensors(f, "itm_head.bias"),
        "lacks the tensor itm_head.bias",
    ),
    ("TensorFlow alone", only_tensorflow, "TensorFlow"),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), "neither model.safetensors"),
    ("a pickle that runs code", evil_pickle, "it was not run"),
    ("a truncated file", truncated, "no readable safetensors"),
    ("a broken index", broken_index, "names no shards"),
    ("a missing shard", missing_shard, "lacks the shards"),
    ("a shard outside the folder", shard_outside, "lacks the shards"),
    ("no config", lambda f: (f / "config.json").unlink(), "config.json is missing"),
    ("a config that is no JSON", lambda f: (f / "config.json").write_text("{"), "is no JSON"),
    ("a config that is a list", lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
    (
        "no preprocessor",
        lambda f: (f / "preprocessor_config.json").unlink(),
        "no preprocessor_config.json",
    ),
    (
        "another size",
        lambda f: edit_preprocessor(f, size={"height": 64, "width": 64}),
        "image_size",
    ),
    (
        "a size of one edge",
        lambda f: edit_preprocessor(f, size={"shortest_edge": 32}),
        "not a height",
    ),
    ("a crop", lambda f: edit_preprocessor(f, do_center_crop=True), "crops"),
    ("no rescaling", lambda f: edit_preprocessor(f, do_rescale=False), "do_rescale=false"),
    ("a broken record", lambda f: (f / "source.json").write_text("{}"), "source.json"),
]


@pytest.mark.parametrize(
    ("damage", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_given_a_checkpoint_that_cannot_be_right_when_loaded_then_it_is_refused(
    copy_of_tiny: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(copy_of_tiny)
    with pytest.raises(CheckpointError, match=message):
        Engine.load(copy_of_tiny)


@pytest.mark.parametrize(
    ("prefix", "task", "needed"),
    [
        ("text_decoder", "caption", "BlipForConditionalGeneration"),
        ("itm_head", "match", "BlipForImageTextRetrieval"),
    ],
)
def test_given_a_task_whose_heads_are_missing_when_asked_for_then_it_is_refused_by_name(
    copy_of_tiny: Path, prefix: str, task: str, needed: str
) -> None:
    drop_tensors(copy_of_tiny, prefix)
    with pytest.raises(CheckpointError, match=f"lacks {prefix}.*load a {needed} checkpoint"):
        Engine.load(copy_of_tiny, tasks=[task])


def test_given_heads_missing_for_one_task_when_the_other_is_asked_for_then_it_loads(
    copy_of_tiny: Path,
) -> None:
    drop_tensors(copy_of_tiny, "itm_head")
    assert Engine.load(copy_of_tiny, tasks=["caption"]).tasks == {"caption"}


def test_given_a_checkpoint_when_loaded_then_no_numbers_are_drawn_that_its_own_would_replace(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that is drawn for the meta device has torch import its compiler, in a second."""

    def draw(*_: object, **__: object) -> None:
        raise AssertionError("an embedding is initialised")

    monkeypatch.setattr(torch.nn.init, "normal_", draw)
    assert caption_ids(Engine.load(str(tiny)))


def test_given_an_unknown_task_when_loaded_then_it_is_refused(tiny: Path) -> None:
    with pytest.raises(ValueError, match="tasks are caption and match"):
        Engine.load(tiny, tasks=["answer"])


def test_given_a_pickle_of_plain_weights_when_loaded_then_nothing_differs(
    copy_of_tiny: Path, tiny_engine: Engine
) -> None:
    to_pickle(copy_of_tiny)
    assert caption_ids(Engine.load(copy_of_tiny)) == caption_ids(tiny_engine)


def test_given_shards_when_loaded_then_nothing_differs(
    copy_of_tiny: Path, tiny_engine: Engine
) -> None:
    state = load_file(copy_of_tiny / "model.safetensors")
    (copy_of_tiny / "model.safetensors").unlink()
    names = sorted(state)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, copy_of_tiny / shard)
        weight_map |= dict.fromkeys(part, shard)
    index = copy_of_tiny / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert caption_ids(Engine.load(copy_of_tiny)) == caption_ids(tiny_engine)


def test_given_a_newer_processor_config_when_loaded_then_nothing_differs(
    copy_of_tiny: Path, tiny_engine: Engine
) -> None:
    old = copy_of_tiny / "preprocessor_config.json"
    new = {"image_processor": json.loads(old.read_text()), "processor_class": "BlipProcessor"}
    (copy_of_tiny / "processor_config.json").write_text(json.dumps(new))
    old.unlink()
    assert caption_ids(Engine.load(copy_of_tiny)) == caption_ids(tiny_engine)


def test_given_a_head_of_its_own_when_loaded_then_it_is_used(
    copy_of_tiny: Path, tiny_engine: Engine
) -> None:
    state = load_file(copy_of_tiny / "model.safetensors")
    words = state["text_decoder.bert.embeddings.word_embeddings.weight"]
    state["text_decoder.cls.predictions.decoder.weight"] = words.flip(0).contiguous()
    save_file(state, copy_of_tiny / "model.safetensors")
    assert caption_ids(Engine.load(copy_of_tiny)) != caption_ids(tiny_engine)


def test_given_a_tokenizer_without_enc_when_matched_then_cls_is_the_default(
    copy_of_tiny: Path, tiny_engine: Engine
) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        path = copy_of_tiny / file
        path.write_text(path.read_text().replace("[ENC]", "[OLD]"))
    engine = Engine.load(copy_of_tiny)
    images, texts = noise_images(2), ["a b"]
    assert engine.match(images, texts) == tiny_engine.match(images, texts, position_zero="cls")
    with pytest.raises(ValueError, match=r"no \[ENC\]"):
        engine.match(images, texts, position_zero="enc")


def test_given_other_weights_when_loaded_then_the_revision_is_another(
    copy_of_tiny: Path, tiny_engine: Engine
) -> None:
    assert Engine.load(copy_of_tiny).revision == tiny_engine.revision
    state = load_file(copy_of_tiny / "model.safetensors")
    state["itm_head.bias"] += 1
    save_file(state, copy_of_tiny / "model.safetensors")
    assert Engine.load(copy_of_tiny).revision != tiny_engine.revision
