"""transformers' BLIP, as the other side of a comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipForImageTextRetrieval
from transformers.utils import logging

from worker.blip.options import CaptionOptions


class Reference:
    """BlipForConditionalGeneration.generate on the same weights, eager, the only way it has."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        self._model = _load_quietly(BlipForConditionalGeneration, folder, dtype).to(device).eval()
        self._text = self._model.config.text_config
        self._dtype = dtype

    @torch.inference_mode()
    def caption(self, pixel_values: Tensor, options: CaptionOptions) -> list[list[int]]:
        """Token ids of each image's best caption, without [DEC].

        pixel_values: [N, 3, H, W], normalised, on the device; the model casts them.
        """
        # The last column is dropped, the first one is overwritten in place.
        prompt = [self._text.bos_token_id, self._text.sep_token_id]
        output = self._model.generate(
            pixel_values.to(self._dtype),
            input_ids=torch.tensor([prompt] * len(pixel_values), device=pixel_values.device),
            num_beams=options.num_beams,
            max_new_tokens=options.max_new_tokens,
            min_new_tokens=options.min_new_tokens,
            length_penalty=options.length_penalty,
            early_stopping=options.early_stopping,
        )
        token_ids: list[list[int]] = output[:, 1:].tolist()
        return token_ids


class MatchReference:
    """BlipForImageTextRetrieval, called as it is documented: pixels, tokens, a head a call.

    Each call runs the ViT, and each head takes one.
    """

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        self._model = _load_quietly(BlipForImageTextRetrieval, folder, dtype).to(device).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._dtype = dtype

    @torch.inference_mode()
    def match(
        self, pixel_values: Tensor, texts: Sequence[str], per_call: int = 1
    ) -> tuple[Tensor, Tensor]:
        """ITM logits [texts, 2] and ITC cosines [texts] on the host, `per_call` texts a call.

        pixel_values: [1, 3, H, W], normalised, on the device. ITM takes the image once per text.
        """
        pixels = pixel_values.to(self._dtype)
        logits, cosines = [], []
        for start in range(0, len(texts), per_call):
            part = list(texts[start : start + per_call])
            read = self._tokenizer(part, padding=True, return_tensors="pt").to(pixels.device)
            inputs = {"input_ids": read.input_ids, "attention_mask": read.attention_mask}
            copies = pixels.expand(len(part), -1, -1, -1)
            logits.append(self._model(pixel_values=copies, **inputs).itm_score)
            cosines.append(self._model(pixel_values=pixels, use_itm_head=False, **inputs).itm_score)
        return torch.cat(logits).float().cpu(), torch.cat(cosines, dim=1)[0].float().cpu()


def _load_quietly(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A checkpoint that does both tasks leaves tensors unread; transformers would list them all."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(folder, dtype=dtype)
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
