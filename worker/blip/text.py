"""The text stack: BERT layers (post-LN, Devlin et al. 2019) with cross-attention to the image.

BLIP (Li et al. 2022) uses the same stack as decoder (captions) and as encoder (matching). Two
things differ here from transformers' module, and neither changes a number beyond rounding:

- The cross-attention keys and values of every layer are made once per image, both in one GEMM, and
  an image's beams, prompt tokens or texts are query positions of one attention call against them.
  (One GEMM for all layers was slower by a fifth on a CPU, for the way into their places, and takes
  as much memory again.)
- Self-attention keys and values live in one static buffer; who may see what is a mask.
"""

import torch
from torch import Tensor, nn

from worker.blip.config import TextConfig
from worker.blip.linear import Linear
from worker.blip.softmax_attention import attend

_CACHED_IMAGES = 4


class SelfCache:
    """The self-attention keys and values of every layer, in one buffer.

    buffer: [layers, 2, batch, heads, columns, head_size], TextModel.cache_shape. A forward of T
    tokens fills the next T columns. Beams never move: see decoding.py.
    """

    def __init__(self, buffer: Tensor) -> None:
        self._buffer = buffer
        self.length = 0

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write [batch, heads, T, head_size] after `length`; return all columns so far."""
        end = self.length + key.shape[2]
        keys, values = self._buffer[layer]
        keys[:, :, self.length : end] = key
        values[:, :, self.length : end] = value
        return keys[:, :, :end], values[:, :, :end]


class StaticCache:
    """A SelfCache whose shapes never change: `columns`, int64 [T], says where to write.

    All columns are returned each time; the mask hides those that were not written yet.
    """

    def __init__(self, buffer: Tensor, columns: Tensor) -> None:
        self._buffer, self._columns = buffer, columns
        self.length = 0

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write [batch, heads, T, head_size] at `columns`; return all columns."""
        keys, values = self._buffer[layer]
        keys.index_copy_(2, self._columns, key)
        values.index_copy_(2, self._columns, value)
        return keys, values


class TextLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward, each followed by its LayerNorm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.num_heads = config.num_heads
        self.qkv = Linear(width, 3 * width)
        self.attention = Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.cross_query = Linear(width, width)
        self.cross_attention = Linear(width, width)
        self.cross_norm = nn.LayerNorm(width, eps=eps)
        self.up = Linear(width, config.intermediate_size)
        self.down = Linear(config.intermediate_size, width)
        self.output_norm = nn.LayerNorm(width, eps=eps)

    def forward(
        self,
        hidden: Tensor,
        mask: Tensor | None,
        cross: Tensor | None,
        cache: SelfCache | StaticCache | None,
        index: int,
        cross_mask: Tensor | None = None,
        first: bool = False,
    ) -> Tensor:
        """hidden [B, T, hidden] to the same; masks, cross and cache are TextModel's.

        first: position 0 alone is wanted, [B, 1, hidden].
        """
        hidden = self.attention_norm(self._attend_self(hidden, mask, cache, index, first))
        if cross is not None:
            hidden = self.cross_norm(self._attend_image(hidden, cross[index], cross_mask))
        output: Tensor = self.output_norm(self.down.add(self.up.gelu(hidden), hidden))
        return output

    def _attend_self(
        self,
        hidden: Tensor,
        mask: Tensor | None,
        cache: SelfCache | StaticCache | None,
        index: int,
        first: bool,
    ) -> Tensor:
        batch, tokens, width = hidden.shape
        qkv = self.qkv(hidden).view(batch, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if cache is not None:
            key, value = cache.extend(index, key, value)
        if first:
            query, hidden = query[:, :, :1], hidden[:, :1].contiguous()
        return self.attention.add(attend(query, key, value, mask), hidden)

    def _attend_image(self, hidden: Tensor, key_value: Tensor, cross_mask: Tensor | None) -> Tensor:
        images, head_size = key_value.shape[1], key_value.shape[-1]
        query = self.cross_query(hidden).view(images, -1, self.num_heads, head_size)
        key, value = key_value
        context = attend(query.transpose(1, 2), key, value, cross_mask)
        return self.cross_attention.add(context.view(hidden.shape), hidden)


def _embedding(rows: int, width: int) -> nn.Embedding:
    """Not initialised, as the weights are loaded: on the meta device that alone would import
    torch._dynamo, a second of each start."""
    empty = torch.empty(rows, width)
    return nn.Embedding.from_pretrained(empty)  # type: ignore[no-untyped-call, no-any-return]


class TextModel(nn.Module):
    """Embeddings and layers, without a head."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.words = _embedding(config.vocab_size, config.hidden_size)
        self.positions = _embedding(config.max_positions, config.hidden_size)
        self.embedding_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.num_layers))
        self.cross_key_values = nn.ModuleList(
            Linear(config.encoder_hidden_size, 2 * config.hidden_size)
            for _ in range(config.num_layers)
        )

    def cache_shape(self, batch: int, columns: int) -> tuple[int, ...]:
        """[layers, 2, batch, heads, columns, head_size]: keys and values of every layer."""
        config = self.config
        head_size = config.hidden_size // config.num_heads
        return config.num_layers, 2, batch, config.num_heads, columns, head_size

    def project_images(self, image_embeddings: Tensor, out: Tensor | None = None) -> Tensor:
        """Cross-attention keys and values of all layers, one GEMM each for both.

        image_embeddings: [N, S, encoder_hidden]. Returns [layers, 2, N, heads, S, head_size]: `out`
        where it is given.
        """
        images, tokens, _ = image_embeddings.shape
        _, _, _, heads, _, head_size = shape = self.cache_shape(images, tokens)
        key_value = image_embeddings.new_empty(shape) if out is None else out
        # What a CPU makes of a few images is still in cache when it is put in its place.
        step = _CACHED_IMAGES if image_embeddings.device.type == "cpu" else max(1, images)
        for start in range(0, images, step):
            part = image_embeddings[start : start + step]
            for layer, projection in enumerate(self.cross_key_values):
                projected = projection(part).view(len(part), tokens, 2, heads, head_size)
                key_value[layer, :, start : start + step] = projected.permute(2, 0, 3, 1, 4)
        return key_value

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        cross: Tensor | None = None,
        cache: SelfCache | StaticCache | None = None,
        cross_mask: Tensor | None = None,
        first: bool = False,
    ) -> Tensor:
        """token_ids, positions: int64 [B, T]. Returns hidden states [B, T, hidden].

        mask: bool, broadcast to [B, heads, T, columns], True where a query may look; every query
        must see one column at least. cross: from project_images for N images, B a multiple of N
        (the rows of one image follow each other); None leaves cross-attention out, as BLIP's text
        encoder does for ITC. cross_mask: bool [N, 1, 1, S], True where an image has a
        token; None where all have. first: give position 0 alone, [B, 1, hidden], and spare
        the others what the last layer would make of them.
        """
        last = len(self.layers) - 1
        hidden: Tensor = self.embedding_norm(self.words(token_ids) + self.positions(positions))
        for index, layer in enumerate(self.layers):
            only = first and index == last
            hidden = layer(hidden, mask, cross, cache, index, cross_mask, only)
        if cache is not None:
            cache.length += token_ids.shape[1]
        return hidden


class TextDecoder(nn.Module):
    """The caption decoder: TextModel and the language-model head, tied to the word embeddings."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.text = TextModel(config)
        self.transform = Linear(config.hidden_size, config.hidden_size)
        self.transform_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.vocabulary = Linear(config.hidden_size, config.vocab_size)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] to [..., vocab_size]."""
        scores: Tensor = self.vocabulary(self.transform_norm(self.transform.gelu(hidden)))
        return scores


LAYER_NAMES = {
    "attention": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "cross_query": "crossattention.self.query",
    "cross_attention": "crossattention.output.dense",
    "cross_norm": "crossattention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "output_norm": "output.LayerNorm",
}


def text_weights(state: dict[str, Tensor], prefix: str, num_layers: int) -> dict[str, Tensor]:
    """The checkpoint's `<prefix>*` tensors under TextModel's names, q/k/v fused.

    Raises KeyError with the name of a tensor that the checkpoint lacks.
    """
    weights = {
        "words.weight": state[f"{prefix}embeddings.word_embeddings.weight"],
        "positions.weight": state[f"{prefix}embeddings.position_embeddings.weight"],
    }
    for kind in ("weight", "bias"):
        weights[f"embedding_norm.{kind}"] = state[f"{prefix}embeddings.LayerNorm.{kind}"]
        for index in range(num_layers):
            layer = f"{prefix}encoder.layer.{index}."
            for ours, theirs in LAYER_NAMES.items():
                weights[f"layers.{index}.{ours}.{kind}"] = state[f"{layer}{theirs}.{kind}"]
            weights[f"layers.{index}.qkv.{kind}"] = torch.cat(
                [
                    state[f"{layer}attention.self.{name}.{kind}"]
                    for name in ("query", "key", "value")
                ]
            )
            weights[f"cross_key_values.{index}.{kind}"] = torch.cat(
                [state[f"{layer}crossattention.self.{name}.{kind}"] for name in ("key", "value")]
            )
    return weights


def decoder_weights(state: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """The checkpoint's `text_decoder.*` tensors under TextDecoder's names.

    The head's matrix and bias are usually absent or a copy: tied to the word embeddings and to
    `cls.predictions.bias`. Where the file has its own, the file is right.
    """
    text = text_weights(state, "text_decoder.bert.", num_layers)
    head = "text_decoder.cls.predictions."
    weights = {f"text.{name}": tensor for name, tensor in text.items()}
    for kind in ("weight", "bias"):
        weights[f"transform.{kind}"] = state[f"{head}transform.dense.{kind}"]
        weights[f"transform_norm.{kind}"] = state[f"{head}transform.LayerNorm.{kind}"]
    own = state.get(f"{head}decoder.weight")
    tied = own is None or torch.equal(own, text["words.weight"])
    weights["vocabulary.weight"] = text["words.weight"] if tied or own is None else own
    own_bias = state.get(f"{head}decoder.bias")
    weights["vocabulary.bias"] = state[f"{head}bias"] if own_bias is None else own_bias
    return weights
