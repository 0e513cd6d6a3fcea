"""What is refused of a pack, and why; and what is not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.blip_checkpoints import write_random_checkpoint
from worker.blip import Engine, PackError
from worker.blip.adapter_files import CONFIG_FILE, TENSOR_FILE
from worker.blip.random_checkpoint import Shape
from worker.blip.random_pack import PackShape, write_random_pack

LAYER = "base_model.model.text_decoder.bert.encoder.layer.0."
QUERY = f"{LAYER}attention.self.query"
WORDS = "base_model.model.text_decoder.bert.embeddings.word_embeddings.weight"
BIAS = "base_model.model.text_decoder.cls.predictions.bias"
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def sound(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "pack"
    return write_random_pack(folder, tiny, "sound", PackShape(words=150, rank=4))


@pytest.fixture
def pack(sound: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(sound, tmp_path / "pack")


def config(**values: Any) -> Damage:
    def damage(folder: Path) -> None:
        read = json.loads((folder / CONFIG_FILE).read_text())
        (folder / CONFIG_FILE).write_text(json.dumps(read | values))

    return damage


def card(**values: Any) -> Damage:
    def damage(folder: Path) -> None:
        read = json.loads((folder / "pack.json").read_text())
        (folder / "pack.json").write_text(json.dumps(read | values))

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        state = load_file(folder / TENSOR_FILE)
        change(state)
        save_file(state, folder / TENSOR_FILE)

    return damage


def put(name: str, tensor: torch.Tensor) -> Damage:
    return tensors(lambda state: state.update({name: tensor}))


def leave_out(name: str) -> Damage:
    return tensors(lambda state: state.pop(name))


def file(name: str, data: bytes | None) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink() if data is None else (folder / name).write_bytes(data)

    return damage


def an_id_beyond_the_embeddings(folder: Path) -> None:
    read = json.loads((folder / "tokenizer.json").read_text())
    read["model"]["vocab"]["word30"] = 900
    (folder / "tokenizer.json").write_text(json.dumps(read))


def infinite(state: dict[str, torch.Tensor]) -> None:
    state[f"{QUERY}.lora_A.weight"][0, 0] = torch.inf


def header(shape: list[int], end: int) -> bytes:
    """A safetensors file of one tensor that says more of itself than there is."""
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}
    text = json.dumps({f"{QUERY}.lora_A.weight": entry}).encode()
    return len(text).to_bytes(8, "little") + text


NO_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
REFUSED: dict[str, tuple[Damage, str]] = {
    "no card": (file("pack.json", None), "pack is no pack: it has no pack.json"),
    "a card that is none": (file("pack.json", b"["), "pack.json cannot be read as JSON"),
    "a card without end": (file("pack.json", b"[" * 400_000), "cannot be read as JSON"),
    "a card of a megabyte": (file("pack.json", b" " * 1_000_001), "larger than 1000000 bytes"),
    "scores that are none": (card(scores=["exact"]), r"scores are numbers by name, not \['exact'"),
    "a score in words": (card(scores={"exact": "high"}), "scores are numbers by name"),
    "a score without end": (card(scores={"exact": 10**400}), "scores are numbers by name"),
    "a score that is no number": (card(scores={"exact": float("nan")}), "scores are numbers by"),
    "a base without a name": (
        card(base={"model_id": None, "revision": "1", "digest": "2"}),
        "base's model_id, revision and digest are texts",
    ),
    "another base": (
        card(base={"model_id": "cats", "revision": "1", "digest": "2"}),
        "trained on cats at revision 1, and cannot adapt",
    ),
    "no settings": (file(CONFIG_FILE, None), "has no adapter_config.json"),
    "another method": (config(peft_type="IA3"), "peft_type must be LORA"),
    "DoRA": (config(use_dora=True), "use_dora is not supported"),
    "biases": (config(bias="all"), "bias is not supported but for 'none'"),
    "LoRA's own biases": (config(lora_bias=True), "lora_bias is not supported"),
    "a base changed at the start": (config(init_lora_weights="pissa"), "changes the base's own"),
    "other scalings for some": (config(alpha_pattern={"query": 1}), "alpha_pattern is not"),
    "tokens trained alone": (config(trainable_token_indices=[3]), "trainable_token_indices is"),
    "repeated layers": (config(layer_replication=[[0, 2]]), "layer_replication is not supported"),
    "what a later peft has": (config(use_magic=True), "use_magic is not supported"),
    "no scaling": (config(lora_alpha=None), "lora_alpha must be a positive number"),
    "a scaling without end": (config(lora_alpha=float("inf")), "lora_alpha must be a positive"),
    "no tensors": (file(TENSOR_FILE, None), "the pack has no adapter_model.safetensors"),
    "a pickle": (file(TENSOR_FILE, b"\x80\x04."), "is no readable safetensors file"),
    "a header that lies": (
        file(TENSOR_FILE, header([2**40, 64], 2**48)),
        "is no readable safetensors file",
    ),
    "a shape that overflows": (
        file(TENSOR_FILE, header([2**62, 2**62], 16)),
        "is no readable safetensors file",
    ),
    "half numbers": (
        put(f"{QUERY}.lora_A.weight", torch.zeros(4, 64, dtype=torch.float16)),
        "is F16; a pack's tensors are float32",
    ),
    "infinite numbers": (tensors(infinite), "query.lora_A.weight holds infinite numbers"),
    "half of a pair": (leave_out(f"{QUERY}.lora_B.weight"), "has no lora_B.weight beside it"),
    "another width": (put(f"{QUERY}.lora_A.weight", torch.zeros(4, 63)), "fits no LoRA of"),
    "ranks that differ": (put(f"{QUERY}.lora_A.weight", torch.zeros(5, 64)), "fits no LoRA of"),
    "a rank of nothing": (
        tensors(
            lambda s: s.update(
                {
                    f"{QUERY}.lora_A.weight": torch.zeros(0, 64),
                    f"{QUERY}.lora_B.weight": torch.zeros(64, 0),
                }
            )
        ),
        "fits no LoRA of",
    ),
    "one dimension": (put(f"{QUERY}.lora_A.weight", torch.zeros(64)), "fits no LoRA of"),
    "a ViT": (
        put(
            "base_model.model.vision_model.encoder.layers.0.self_attn.qkv.lora_A.weight",
            torch.zeros(4, 64),
        ),
        "vision_model.encoder.layers.0.self_attn.qkv cannot be adapted",
    ),
    "embeddings": (
        put(f"{WORDS.removesuffix('.weight')}.lora_embedding_A", torch.zeros(4, 200)),
        "lora_embedding_A cannot be replaced",
    ),
    "magnitudes": (
        put(f"{QUERY}.lora_magnitude_vector", torch.zeros(64)),
        "lora_magnitude_vector cannot be replaced",
    ),
    "a LayerNorm": (
        put(f"{LAYER}output.LayerNorm.weight", torch.zeros(64)),
        "output.LayerNorm.weight cannot be replaced",
    ),
    "a matching head": (
        put("base_model.model.itm_head.weight", torch.zeros(2, 64)),
        "itm_head.weight cannot be replaced",
    ),
    "no name of peft's": (put("query.lora_A.weight", torch.zeros(4, 64)), "is no tensor of a PEFT"),
    "words of another width": (
        put(WORDS, torch.zeros(150, 63)),
        r"is \[150, 63\], not \[None, 64\]",
    ),
    "more words than biases": (
        put(WORDS, torch.zeros(151, 64)),
        "of 151 tokens, and another number",
    ),
    "no biases": (leave_out(BIAS), "of 150 tokens, and another number of"),
    "fewer words than the tokenizer": (
        tensors(lambda s: s.update({WORDS: torch.zeros(99, 64), BIAS: torch.zeros(99)})),
        "its tokenizer cannot be used: .* is outside the vocabulary",
    ),
    "a tokenizer with an id too high": (
        an_id_beyond_the_embeddings,
        "it has embeddings of 150 tokens, and its tokenizer ids up to 900",
    ),
    "a broken tokenizer": (file("tokenizer.json", b"{}"), "its tokenizer cannot be used"),
    "a tokenizer that is none": (file("tokenizer.json", b"\x00"), "its tokenizer cannot be used"),
    "a tokenizer of code": (
        file(
            "tokenizer_config.json",
            json.dumps(
                {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
            ).encode(),
        ),
        "its tokenizer cannot be used",
    ),
}


@pytest.mark.parametrize(("damage", "reason"), REFUSED.values(), ids=REFUSED)
def test_given_a_damaged_pack_then_it_is_refused_and_the_message_says_why(
    tiny_engine: Engine, pack: Path, damage: Damage, reason: str
) -> None:
    damage(pack)
    (pack / "evil.py").write_text("raise SystemExit('code of a pack has run')")
    with pytest.raises(PackError, match=reason):
        tiny_engine.load_pack(pack)


def test_given_numbers_that_scaling_or_the_type_makes_infinite_then_a_pack_is_refused(
    tiny: Path, tiny_engine: Engine, pack: Path
) -> None:
    tensors(lambda s: s[f"{QUERY}.lora_B.weight"].fill_(3.4e38))(pack)
    with pytest.raises(PackError, match=r"sound: .*query is too large for torch\.bfloat16"):
        Engine.load(tiny, dtype="bfloat16", tasks=["caption"]).load_pack(pack)
    config(lora_alpha=400)(pack)
    with pytest.raises(PackError, match=r"sound: .*query is too large for torch\.float32"):
        tiny_engine.load_pack(pack)


def test_given_a_pack_without_its_tokenizer_then_its_words_are_refused(
    tiny_engine: Engine, pack: Path
) -> None:
    for name in NO_TOKENIZER:
        (pack / name).unlink()
    with pytest.raises(PackError, match="of 150 tokens, and no tokenizer for them"):
        tiny_engine.load_pack(pack)


def test_given_a_pack_for_a_task_that_is_not_loaded_then_it_is_refused(
    tiny: Path, pack: Path
) -> None:
    engine = Engine.load(tiny, tasks=["match"])
    with pytest.raises(PackError, match="is for caption, which tiny0 is not loaded for"):
        engine.load_pack(pack)


def test_given_settings_that_change_nothing_then_a_pack_is_taken(
    tiny_engine: Engine, pack: Path
) -> None:
    config(
        bias="none", use_dora=False, lora_dropout=0.1, target_modules=".*", rank_pattern={"a": 2},
        init_lora_weights="gaussian", modules_to_save=None, task_type=None, alpha_pattern={},
        loftq_config={}, megatron_core="megatron.core", peft_version="0.21", r=4,
    )(pack)  # fmt: skip
    assert tiny_engine.load_pack(pack).name == "sound"


def test_given_the_same_weights_under_another_name_then_their_packs_are_taken(
    copy_of_tiny: Path, sound: Path
) -> None:
    (copy_of_tiny / "source.json").write_text('{"model_id": "elsewhere/tiny", "revision": "main"}')
    engine = Engine.load(copy_of_tiny, tasks=["caption"])
    assert engine.revision == "main"
    assert engine.load_pack(sound).name == "sound"


def test_given_other_weights_of_the_same_shape_then_their_packs_are_refused(
    sound: Path, tmp_path: Path
) -> None:
    shape = Shape(32, 8, 64, 2, 4, 64, 2, 4, 200)
    other = Engine.load(write_random_checkpoint(tmp_path / "other", shape, seed=7))
    with pytest.raises(PackError, match=r"sound: it was trained on .* cannot adapt other"):
        other.load_pack(sound)


def test_given_another_revision_then_the_weights_are_read_once_for_all_packs(
    copy_of_tiny: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy_of_tiny / "source.json").write_text('{"model_id": "tiny", "revision": "main"}')
    engine = Engine.load(copy_of_tiny, tasks=["caption"])
    for _ in range(2):
        engine.load_pack(sound)
        monkeypatch.setattr("worker.blip.pack_files.Weights", None)  # it is not asked again


@pytest.mark.parametrize(
    ("damage", "same"),
    [
        (card(name="other", scores={"exact": 1.0}), True),
        (file("README.md", b"for people"), True),
        (tensors(lambda s: s[BIAS].add_(1)), False),
        (config(lora_alpha=5), False),
        (file("special_tokens_map.json", b"{}"), False),
    ],
    ids=["its card", "its README", "a tensor", "a setting", "its tokenizer"],
)
def test_given_a_change_then_the_revision_follows_what_the_pack_says(
    tiny_engine: Engine, sound: Path, pack: Path, damage: Damage, same: bool
) -> None:
    before = tiny_engine.load_pack(sound).revision
    damage(pack)
    assert len(before) == 12
    assert (tiny_engine.load_pack(pack).revision == before) is same
