"""merge-pack: a pack and its base as one checkpoint, by the engine's hand or from the shell."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipProcessor
from typer.testing import CliRunner

from tests.blip_checkpoints import drop_tensors, load_quietly, noise_images, to_pickle
from tests.blip_packs import EVERY_MATCH_LAYER, Made, write_pack
from worker.blip import CheckpointError, Engine, PackError
from worker.blip.adapter_files import PREFIX, TENSOR_FILE
from worker.blip.adapter_names import BIAS
from worker.blip.merge import merge_pack
from worker.blip.random_pack import PackShape, write_random_pack
from worker.cli import cli


@pytest.fixture(scope="module")
def pack(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "pack"
    write_random_pack(folder, tiny, "merged", PackShape(words=150, rank=4))
    (folder / "README.md").write_text("what it is")
    return folder


def test_given_the_command_then_the_folder_is_a_checkpoint_that_transformers_captions_with(
    tiny: Path, pack: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(
        cli, ["merge-pack", str(pack), "-o", str(out), "--model", str(tiny)]
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}\n"
    model = load_quietly(BlipForConditionalGeneration, out)
    processor = BlipProcessor.from_pretrained(out)
    image = noise_images(1)
    pixels = processor(images=image, return_tensors="pt").pixel_values
    with torch.inference_mode():
        [ids] = model.generate(pixels, num_beams=3, max_new_tokens=20, min_new_tokens=5).tolist()
    engine = Engine.load(tiny)
    [[caption]] = engine.caption(image, packs=engine.load_pack(pack))
    assert ids[1 : 1 + len(caption.token_ids)] == caption.token_ids
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == caption.text
    assert (out / "README.md").read_text() == "what it is"


def test_given_a_merged_pack_then_config_and_tensors_are_of_its_task_alone(
    tiny: Path, pack: Path, tmp_path: Path
) -> None:
    merge_pack(pack, tmp_path / "out", tiny)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["BlipForConditionalGeneration"]
    assert config["text_config"]["vocab_size"] == 150
    assert config["text_config"]["bos_token_id"] == 148
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as tensors:
        assert {name.split(".")[0] for name in tensors.keys()} == {"vision_model", "text_decoder"}  # noqa: SIM118
    assert Engine.load(tmp_path / "out").tasks == {"caption"}


def test_given_a_pickled_base_with_tied_copies_then_the_copies_are_not_kept(
    copy_of_tiny: Path, tmp_path: Path
) -> None:
    to_pickle(copy_of_tiny)
    shape = PackShape(words=150, rank=4)
    pack = write_random_pack(tmp_path / "pack", copy_of_tiny, "pickled", shape)
    merged = Engine.load(merge_pack(pack, tmp_path / "out", copy_of_tiny))
    images, engine = noise_images(2), Engine.load(copy_of_tiny)
    found = merged.caption(images, num_beams=1)
    expected = engine.caption(images, packs=engine.load_pack(pack), num_beams=1)
    assert [row[0].token_ids for row in found] == [row[0].token_ids for row in expected]


def test_given_a_pickled_base_and_a_pack_of_biases_alone_then_the_packs_are_kept(
    copy_of_tiny: Path, tmp_path: Path
) -> None:
    to_pickle(copy_of_tiny)
    pack = write_random_pack(tmp_path / "pack", copy_of_tiny, "biased", PackShape(rank=4))
    state = load_file(pack / TENSOR_FILE)
    bias = torch.zeros(200)
    bias[30] = 50.0
    save_file({**state, f"{PREFIX}{BIAS}": bias}, pack / TENSOR_FILE)
    merged = Engine.load(merge_pack(pack, tmp_path / "out", copy_of_tiny))
    images, engine = noise_images(2), Engine.load(copy_of_tiny)
    found = merged.caption(images, num_beams=1)
    expected = engine.caption(images, packs=engine.load_pack(pack), num_beams=1)
    assert [row[0].token_ids for row in found] == [row[0].token_ids for row in expected]
    assert set(found[0][0].token_ids) == {30}


def test_given_a_match_pack_then_transformers_loads_every_tensor_of_it(
    tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "pack").mkdir()
    write_pack(tmp_path / "pack", tiny, Made(task="match", targets=EVERY_MATCH_LAYER))
    merge_pack(tmp_path / "pack", tmp_path / "out", tiny)
    _, told = BlipForImageTextRetrieval.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]


def test_given_a_folder_that_is_in_use_then_nothing_is_written(
    tiny: Path, pack: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(PackError, match="is not empty"):
        merge_pack(pack, tmp_path, tiny)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_given_a_base_without_the_packs_task_then_the_message_names_what_is_missing(
    copy_of_tiny: Path, tmp_path: Path, tiny: Path
) -> None:
    (tmp_path / "pack").mkdir()
    write_pack(tmp_path / "pack", tiny, Made(task="match", targets=EVERY_MATCH_LAYER))
    drop_tensors(copy_of_tiny, "itm_head")
    with pytest.raises(CheckpointError, match="lacks itm_head"):
        merge_pack(tmp_path / "pack", tmp_path / "out", copy_of_tiny)


def test_given_no_pack_then_the_command_says_so_in_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["merge-pack", str(tmp_path), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "has no pack.json" in result.stderr
    assert result.stderr.count("\n") == 1
