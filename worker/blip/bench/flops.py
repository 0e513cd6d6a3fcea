"""The arithmetic of captioning, counted from the shapes: the numerator of every TFLOP/s here.

A matrix product of [m, k] and [k, n] is 2 m k n FLOPs; nothing else is counted (no softmax, norm,
GELU, bias or embedding). Attention counts the columns that a query may see. Per image, with

    T tokens of the ViT (patches and class token), D its width, I its feed-forward width, L layers,
    p the patch size; d, i, l the same of the decoder, V its vocabulary; n new tokens, b beams:

    vision   2 (T-1) 3p² D                             patch embedding
           + L (2 T D 3D + 2 T D D + 2·2 T² D          qkv, projection, attention
                + 2·2 T D I)                           fc1, fc2
    cross    2 T D (l 2d)                              keys and values of all layers, once
    decode   sum over the n steps s = 0, 1, ... n-1; r rows, 1 in the first step and b after, each
             l (2 d 3d + 2 d d + 2·2 (s+1) d           qkv, output, self-attention
                + 2·2 d d + 2·2 T d                    cross-attention: query, output, attention
                + 2·2 d i) + 2 d d + 2 d V             feed-forward; head

This is what the task needs when nothing is done twice. Work that a kernel adds (masked columns,
padding, keys and values repeated per beam) takes time and earns nothing here.
"""

from dataclasses import dataclass

from worker.blip.config import TextConfig, VisionConfig


@dataclass(frozen=True)
class Flops:
    """FLOPs of one image, by stage."""

    vision: int
    cross: int
    decode: int

    @property
    def total(self) -> int:
        """All stages."""
        return self.vision + self.cross + self.decode


def caption_flops(vision: VisionConfig, text: TextConfig, beams: int, new_tokens: int) -> Flops:
    """FLOPs of one caption of exactly `new_tokens` tokens after [DEC], without a prompt."""
    rows = [1] + [beams] * (new_tokens - 1)
    return Flops(
        vision=_vision(vision),
        cross=2 * vision.num_tokens * text.encoder_hidden_size * _key_value_width(text),
        decode=sum(n * row_flops(vision, text, step) for step, n in enumerate(rows)),
    )


def row_flops(vision: VisionConfig, text: TextConfig, step: int) -> int:
    """FLOPs of one beam's decoder pass at a step, 0 being the first, its logits included."""
    width, columns = text.hidden_size, step + 1
    layer = (
        2 * width * (3 * width)  # qkv
        + 2 * width * width  # output of self-attention
        + 2 * 2 * columns * width  # scores and their sum over values
        + 2 * 2 * width * width  # cross-attention's query and output
        + 2 * 2 * vision.num_tokens * width
        + 2 * 2 * width * text.intermediate_size
    )
    return text.num_layers * layer + 2 * width * width + 2 * width * text.vocab_size


def _vision(config: VisionConfig) -> int:
    tokens, width = config.num_tokens, config.hidden_size
    patches = 2 * (tokens - 1) * (3 * config.patch_size**2) * width
    layer = (
        2 * tokens * width * (3 * width)  # qkv
        + 2 * tokens * width * width  # projection
        + 2 * 2 * tokens * tokens * width  # scores and their sum over values
        + 2 * 2 * tokens * width * config.intermediate_size
    )
    return patches + config.num_layers * layer


def _key_value_width(text: TextConfig) -> int:
    return text.num_layers * 2 * text.hidden_size
