"""What is evaluated: the four callables, over the engine or over a model in training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from worker.blip import Engine

MAX_TOKENS = 24

Images = Sequence[Image.Image]
Texts = Sequence[str]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """What is evaluated. Every callable takes lists and gives as many rows, in order.

    `match` gives the probability that image i and text i belong together; embeddings are of unit
    length.
    """

    caption: Callable[[Images], list[str]]
    match: Callable[[Images, Texts], list[float]]
    embed_images: Callable[[Images], Floats]
    embed_texts: Callable[[Texts], Floats]


def served(engine: Engine) -> Model:
    """A `Model` over the engine, as captionq serves it: greedy captions, [ENC] for ITM."""

    def caption(images: Images) -> list[str]:
        found = engine.caption(
            list(images), num_beams=1, min_new_tokens=0, max_new_tokens=MAX_TOKENS
        )
        return [captions[0].text for captions in found]

    def match(images: Images, texts: Texts) -> list[float]:
        pairs = engine.match(list(images), [[text] for text in texts])
        return [found[0].itm_probability for found in pairs]

    return Model(
        caption,
        match,
        lambda images: engine.embed(images=list(images)).numpy(),
        lambda texts: engine.embed(texts=list(texts)).numpy(),
    )


def over(
    captioner: Any,
    matcher: Any,
    tokenizer: Any,
    prepare: Callable[[Images], Tensor],
) -> Model:
    """A `Model` over transformers' two BLIP classes and a tokenizer.

    Greedy captions from [DEC] alone; ITM with [ENC] at position 0, as in BLIP's own evaluation.
    `prepare` gives pixel values, float32 [B, 3, H, W].
    """

    def text(texts: Texts, first: str) -> dict[str, Tensor]:
        made = tokenizer(list(texts), padding=True, return_tensors="pt")
        ids: Tensor = made["input_ids"]
        ids[:, 0] = tokenizer.convert_tokens_to_ids(first)
        return {"input_ids": ids, "attention_mask": made["attention_mask"]}

    @torch.inference_mode()
    def caption(images: Images) -> list[str]:
        ids = captioner.generate(
            pixel_values=prepare(images), max_length=MAX_TOKENS, do_sample=False, num_beams=1
        )
        said: list[str] = tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [one.strip() for one in said]

    @torch.inference_mode()
    def match(images: Images, texts: Texts) -> list[float]:
        logits = matcher(**text(texts, "[ENC]"), pixel_values=prepare(images)).itm_score
        scores: list[float] = (logits[:, 1] - logits[:, 0]).double().sigmoid().tolist()
        return scores

    @torch.inference_mode()
    def embed_images(images: Images) -> Floats:
        seen = matcher.vision_model(pixel_values=prepare(images)).last_hidden_state
        features: Floats = functional.normalize(matcher.vision_proj(seen[:, 0]), dim=-1).numpy()
        return features

    @torch.inference_mode()
    def embed_texts(texts: Texts) -> Floats:
        read = matcher.text_encoder(**text(texts, "[CLS]")).last_hidden_state
        features: Floats = functional.normalize(matcher.text_proj(read[:, 0]), dim=-1).numpy()
        return features

    return Model(caption, match, embed_images, embed_texts)
