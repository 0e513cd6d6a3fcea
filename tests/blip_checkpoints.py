"""Random BLIP checkpoints on disk, and transformers' answers to compare with."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipForImageTextRetrieval
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.utils import logging

from worker.blip.random_checkpoint import BASE, Shape, write_random_checkpoint

TINY = Shape(
    image_size=32,
    patch_size=8,
    vision_width=64,
    vision_layers=2,
    vision_heads=4,
    text_width=64,
    text_layers=2,
    text_heads=4,
    vocab_size=200,
)
SHALLOW = Shape(image_size=192, vision_layers=2, text_layers=2, vocab_size=3000)
BOTH = ("caption", "match")

__all__ = ["BASE", "BOTH", "SHALLOW", "TINY", "Shape", "write_random_checkpoint"]


def noise_images(
    count: int, seed: int = 0, size: tuple[int, int] = (200, 160)
) -> list[Image.Image]:
    """Images of 4x4 coloured fields: coarse enough for a random ViT to tell them apart."""
    rng = np.random.default_rng(seed)
    fields = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(field).resize(size, Image.Resampling.NEAREST) for field in fields]


def pixel_values(folder: Path, images: Sequence[Image.Image]) -> Tensor:
    """float32 [N, 3, H, W] from transformers' own image processor."""
    processor = BlipImageProcessorPil.from_pretrained(folder)
    values: Tensor = processor(images=list(images), return_tensors="pt").pixel_values
    return values


class Captioner:
    """transformers' BlipForConditionalGeneration in float32, its ViT run once per image set.

    Its position embeddings are interpolated where `pixels` are not of the checkpoint's size.
    """

    def __init__(
        self, folder: Path, images: Sequence[Image.Image], pixels: Tensor | None = None
    ) -> None:
        self.model = load_quietly(BlipForConditionalGeneration, folder)
        text = self.model.config.text_config
        self.bos, self.sep, self.pad = text.bos_token_id, text.sep_token_id, text.pad_token_id
        self.pixels = pixel_values(folder, images) if pixels is None else pixels
        self.embeddings = remember_images(self.model, self.pixels)
        remember_projections(self.model.text_decoder.bert, self.embeddings)

    def generate(self, prompt: Sequence[int] = (), **options: Any) -> tuple[list[list[int]], Any]:
        """Token ids per hypothesis, after the prompt, [SEP] included; and the raw output."""
        # The first column is overwritten with [DEC], the last one is dropped.
        input_ids = torch.tensor([[self.bos, *prompt, self.sep]] * len(self.pixels))
        output = self.model.generate(
            self.pixels,
            input_ids=input_ids,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
        rows = output.sequences[:, 1 + len(prompt) :].tolist()
        return [self._trimmed(row) for row in rows], output

    def _trimmed(self, row: list[int]) -> list[int]:
        return row[: row.index(self.sep) + 1] if self.sep in row else row


class Retriever:
    """transformers' BlipForImageTextRetrieval in float32, its ViT run once per image set."""

    def __init__(self, folder: Path, images: Sequence[Image.Image], embeddings: Any = None) -> None:
        self.model = load_quietly(BlipForImageTextRetrieval, folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.pixels = pixel_values(folder, images)
        embeddings = remember_images(self.model, self.pixels, embeddings)
        remember_projections(self.model.text_encoder, embeddings)

    @torch.inference_mode()
    def scores(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """ITM logits [N, n, 2] and ITC cosines [N, n] of every image with every text."""
        encoded = self.tokenizer(list(texts), padding=True, return_tensors="pt")
        inputs = {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}
        cosines = self.model(pixel_values=self.pixels, use_itm_head=False, **inputs).itm_score
        logits = [
            self.model(
                pixel_values=self.pixels,
                **{name: row[None].expand(len(self.pixels), -1) for name, row in pair.items()},
            ).itm_score
            for pair in ({k: v[i] for k, v in inputs.items()} for i in range(len(texts)))
        ]
        return torch.stack(logits, dim=1), cosines


def load_quietly(kind: Any, folder: Path) -> Any:
    """Load a transformers model; it is expected to leave the other task's tensors unread."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return kind.from_pretrained(folder, dtype=torch.float32).eval()
    finally:
        logging.set_verbosity(before)


def remember_images(model: Any, pixels: Tensor, embeddings: Tensor | None = None) -> Tensor:
    """Run the reference's ViT once and put its answer in its place."""
    if embeddings is None:
        with torch.inference_mode():
            embeddings = model.vision_model(pixels, interpolate_pos_encoding=True)[0]
    model.vision_model = _Remembered(embeddings)
    return embeddings


class _Remembered(torch.nn.Module):
    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, **_: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.embeddings)


@torch.inference_mode()
def remember_projections(text: Any, embeddings: Tensor) -> None:
    """Run the reference's cross-attention keys and values once per image.

    transformers runs them anew in every call, and once per beam: most of its time.
    """
    for layer in text.encoder.layer:
        attention = layer.crossattention.self
        attention.key = _Projected(attention.key, embeddings)
        attention.value = _Projected(attention.value, embeddings)


class _Projected(torch.nn.Module):
    def __init__(self, linear: torch.nn.Module, embeddings: Tensor) -> None:
        super().__init__()
        self.embeddings, self.projected = embeddings, linear(embeddings)

    def forward(self, hidden: Tensor) -> Tensor:
        beams = len(hidden) // len(self.embeddings)
        assert hidden[::beams].equal(self.embeddings)
        return self.projected.repeat_interleave(beams, dim=0)


def edit_config(folder: Path, section: str | None, **values: Any) -> None:
    """Set values in config.json; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    target = config if section is None else config[section]
    for name, value in values.items():
        target.pop(name, None)
        if value is not None:
            target[name] = value
    path.write_text(json.dumps(config))


def drop_tensors(folder: Path, prefix: str) -> None:
    """Remove the tensors whose names start with `prefix`."""
    state = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    assert len(kept) < len(state)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def to_pickle(folder: Path) -> None:
    """Turn model.safetensors into pytorch_model.bin, as older checkpoints have it."""
    state = load_file(folder / "model.safetensors")
    for stack in ("text_decoder.bert", "text_encoder"):
        if f"{stack}.embeddings.word_embeddings.weight" in state:
            state[f"{stack}.embeddings.position_ids"] = torch.arange(512)[None]
    if "text_decoder.cls.predictions.bias" in state:
        words = state["text_decoder.bert.embeddings.word_embeddings.weight"]
        state["text_decoder.cls.predictions.decoder.weight"] = words
        state["text_decoder.cls.predictions.decoder.bias"] = state[
            "text_decoder.cls.predictions.bias"
        ]
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
