"""transformers' BLIP, as the other side of a comparison."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration
from transformers.utils import logging

from worker.blip.options import CaptionOptions


class Reference:
    """BlipForConditionalGeneration.generate on the same weights, eager, the only way it has."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        self._model: Any = _load_quietly(folder, dtype).to(device).eval()
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


def _load_quietly(folder: Path, dtype: torch.dtype) -> Any:
    """A checkpoint that also matches leaves tensors unread; transformers would list them all."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return BlipForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
