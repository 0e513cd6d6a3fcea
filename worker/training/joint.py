"""BLIP's joint pretraining model and its three losses (Li et al. 2022, section 3).

One ViT; a text encoder and a text decoder that share everything but their self-attention.
The modules are transformers' own, so that their state is the published format; the forward
is ours, because the three text passes over an image share its cross-attention keys and values.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    PreTrainedTokenizerBase,
)

from worker.training.dataset import CELLS, DENSE, GRID, SIDE, Batch
from worker.training.scenes import COLOURS
from worker.training.vocabulary import PROMPT, words

WIDTH, HEADS = 128, 4


def configuration(vision_layers: int = 4, text_layers: int = 3) -> BlipConfig:
    """The bundled checkpoint's configuration; ids come from the vocabulary."""
    ids = {word: index for index, word in enumerate(words())}
    shape = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": HEADS}
    config = BlipConfig(
        vision_config={
            **shape,
            "num_hidden_layers": vision_layers,
            "image_size": SIDE,
            "patch_size": SIDE // GRID,
            "initializer_range": 0.02,
        },
        text_config={
            **shape,
            "num_hidden_layers": text_layers,
            "encoder_hidden_size": WIDTH,
            "vocab_size": len(ids),
            "max_position_embeddings": 64,
            "pad_token_id": ids["[PAD]"],
            "bos_token_id": ids["[DEC]"],
            "sep_token_id": ids["[SEP]"],
        },
        image_text_hidden_size=256,
    )
    config.architectures = ["BlipForConditionalGeneration", "BlipForImageTextRetrieval"]
    return config


class Joint(nn.Module):
    """Captioner and matcher over one ViT, and the auxiliary heads that the export drops."""

    def __init__(self, config: BlipConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.captioner = BlipForConditionalGeneration(config)
        self.matcher = BlipForImageTextRetrieval(config)
        self.tokenizer = tokenizer
        self.colours = torch.tensor(tokenizer.convert_tokens_to_ids(list(COLOURS)))
        self.matcher.vision_model = self.captioner.vision_model
        decoder, encoder = self.captioner.text_decoder.bert, self.matcher.text_encoder
        encoder.embeddings = decoder.embeddings
        for ours, theirs in zip(encoder.encoder.layer, decoder.encoder.layer, strict=True):
            ours.crossattention = theirs.crossattention
            ours.intermediate, ours.output = theirs.intermediate, theirs.output
        embeddings = self.captioner.vision_model.embeddings
        nn.init.trunc_normal_(embeddings.class_embedding, std=0.02)
        with torch.no_grad():
            embeddings.position_embedding.copy_(sine_cosine(GRID, WIDTH) * 0.5)
        self.log_temperature = nn.Parameter(torch.tensor(0.07).log())
        self.dense = nn.ModuleDict({name: nn.Linear(WIDTH, n) for name, n in DENSE.items()})
        self.outline = nn.Linear(WIDTH, CELLS**2)

    def losses(
        self, batch: Batch, prompted: Tensor, cls_first: Tensor, slips: float = 0.0
    ) -> dict[str, Tensor]:
        """The losses of one batch, each a scalar: lm, itm, itc, dense.

        `slips`: the share of colour words that the decoder reads as another colour, so that it
        tells a shape's kind from the image and not from which words went together.
        `prompted` bool [B]: rows whose caption follows "a picture of".
        `cls_first` bool [2B + B/4]: rows of the ITM batch that keep [CLS] where BLIP puts [ENC].
        """
        images = self.see(batch.pixels)
        size = len(images)
        ids = self.ids([*batch.captions, *batch.false])
        texts = self.matcher.text_encoder.embeddings(ids)
        texts = self.read(texts, self.bidirectional(ids))
        image_features = functional.normalize(self.matcher.vision_proj(images[:, 0]), dim=-1)
        text_features = functional.normalize(self.matcher.text_proj(texts[:, 0]), dim=-1)
        similarity = image_features @ text_features.T / self.log_temperature.exp()
        everything = [*batch.captions, *batch.false]
        equal = torch.tensor([[a == b for b in everything] for a in batch.captions])
        itc = contrastive(similarity, equal, size)

        quarter = size // 4
        weights = similarity[:, :quarter].T.softmax(-1).masked_fill(equal[:quarter, :size], 0)
        hard = torch.multinomial(weights.detach() + 1e-8 * ~equal[:quarter, :size], 1).squeeze(1)
        pairs = torch.cat((ids, ids[:quarter]))
        first = torch.where(cls_first, pairs[:, 0], self.tokenizer.convert_tokens_to_ids("[ENC]"))
        pairs = torch.cat((first[:, None], pairs[:, 1:]), 1)
        owners = torch.arange(size)
        lm_ids, labels = self.caption_ids(batch.captions, prompted)
        slip = torch.isin(lm_ids, self.colours) & (torch.rand(lm_ids.shape) < slips)
        others = self.colours[torch.randint(len(self.colours), lm_ids.shape)]
        lm_ids = torch.where(slip, others, lm_ids)
        hidden, decoded = self.ground(images, pairs, torch.cat((owners, owners, hard)), lm_ids)
        truth = torch.zeros(len(pairs), dtype=torch.long)
        truth[:size] = 1
        itm = functional.cross_entropy(self.matcher.itm_head(hidden[:, 0]), truth)
        logits = self.captioner.text_decoder.cls(decoded[:, :-1])
        lm = functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        dense = self.dense_loss(images[:, 1:], batch)
        return {"lm": lm, "itm": itm, "itc": itc, "dense": dense}

    def dense_loss(self, patches: Tensor, batch: Batch) -> Tensor:
        """The auxiliary heads' loss over [B, 64, 128], patches on shapes as heavy as the others."""
        shaped = batch.dense["kind"] > 0
        weight = torch.where(shaped, 0.5 / shaped.sum(), 0.5 / (~shaped).sum())
        outline = functional.binary_cross_entropy_with_logits(
            self.outline(patches), batch.masks, reduction="none"
        ).mean(-1)
        total = (2 * outline * weight).sum()
        for name, head in self.dense.items():
            loss = functional.cross_entropy(
                head(patches).transpose(1, 2), batch.dense[name], reduction="none"
            )
            total = total + (loss * weight).sum()
        return total

    def see(self, pixels: Tensor) -> Tensor:
        """float32 [B, 3, side, side] to the ViT's last hidden states [B, 65, 128]."""
        vision = self.captioner.vision_model
        hidden = vision.embeddings(pixels)
        for layer in vision.encoder.layers:
            x = layer.layer_norm1(hidden)
            q, k, v = layer.self_attn.qkv(x).chunk(3, -1)
            hidden = hidden + layer.self_attn.projection(attend(q, k, v))
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        seen: Tensor = vision.post_layernorm(hidden)
        return seen

    def read(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The unimodal text encoder: embedded text [N, T, 128] to hidden states."""
        for layer in self.matcher.text_encoder.encoder.layer:
            own = layer.attention.self
            attended = attend(own.query(hidden), own.key(hidden), own.value(hidden), mask)
            hidden = layer.attention.output(attended, hidden)
            hidden = layer.feed_forward_chunk(hidden)
        return hidden

    def ground(
        self, images: Tensor, pairs: Tensor, owners: Tensor, captions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encoder over `pairs` [P, T] and decoder over `captions` [B, T'] in one pass.

        Row i of `pairs` looks at image owners[i], row i of `captions` at image i. Both run as one
        batch but for self-attention, the one thing they do not share.
        """
        width = captions.shape[1]
        length = max(pairs.shape[1], width)
        pairs, captions = (functional.pad(x, (0, length - x.shape[1])) for x in (pairs, captions))
        split = [len(pairs), len(captions)]
        owners = torch.cat((owners, torch.arange(len(captions))))
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.cat(
            (
                self.bidirectional(pairs).expand(-1, 1, length, -1),
                causal.expand(len(captions), 1, -1, -1),
            )
        )
        encoder, decoder = self.matcher.text_encoder, self.captioner.text_decoder.bert
        hidden = decoder.embeddings(torch.cat((pairs, captions)))
        for one, two in zip(encoder.encoder.layer, decoder.encoder.layer, strict=True):
            halves = list(
                zip(torch.split(hidden, split), (one.attention, two.attention), strict=True)
            )
            q, k, v = (
                torch.cat([getattr(a.self, name)(h) for h, a in halves])
                for name in ("query", "key", "value")
            )
            contexts = torch.split(attend(q, k, v, mask), split)
            hidden = torch.cat([a.output(x, h) for x, (h, a) in zip(contexts, halves, strict=True)])
            cross = two.crossattention
            keys, values = cross.self.key(images)[owners], cross.self.value(images)[owners]
            attended = attend(cross.self.query(hidden), keys, values)
            hidden = two.feed_forward_chunk(cross.output(attended, hidden))
        encoded, decoded = torch.split(hidden, split)
        return encoded, decoded[:, :width]

    def ids(self, texts: list[str]) -> Tensor:
        """[CLS] text [SEP], padded, int64 [N, T]."""
        ids: Tensor = self.tokenizer(texts, padding=True, return_tensors="pt").input_ids
        return ids

    def bidirectional(self, ids: Tensor) -> Tensor:
        """The key mask of padded ids, bool [N, 1, 1, T]."""
        real: Tensor = ids != self.tokenizer.pad_token_id
        return real[:, None, None, :]

    def caption_ids(self, captions: list[str], prompted: Tensor) -> tuple[Tensor, Tensor]:
        """Decoder input and labels [B, T]: labels are -100 on pads and on the prompt."""
        texts = [
            f"{PROMPT} {caption}" if with_prompt else caption
            for caption, with_prompt in zip(captions, prompted.tolist(), strict=True)
        ]
        ids = self.ids(texts)
        labels = ids.masked_fill(ids == self.tokenizer.pad_token_id, -100)
        labels[:, 1 : 1 + len(PROMPT.split())].masked_fill_(prompted[:, None], -100)
        ids[:, 0] = self.tokenizer.bos_token_id
        return ids, labels


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention of projected [N, T, 128]; `mask` is True where a key may be seen."""
    q, k, v = (x.view(*x.shape[:2], HEADS, -1).transpose(1, 2) for x in (q, k, v))
    seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return seen.transpose(1, 2).flatten(2)


def contrastive(similarity: Tensor, equal: Tensor, size: int) -> Tensor:
    """InfoNCE both ways over logits [B, M]; equal captions share the target evenly.

    The first `size` texts are the images' own; the rest are false ones, seen from images only.
    """
    target = equal.float()
    to_text = functional.cross_entropy(similarity, target / target.sum(1, keepdim=True))
    back = target[:, :size].T
    to_image = functional.cross_entropy(similarity[:, :size].T, back / back.sum(1, keepdim=True))
    return (to_text + to_image) / 2


def sine_cosine(grid: int, width: int) -> Tensor:
    """2-D sine-cosine position embeddings [1, 1 + grid * grid, width], zeros for [CLS]."""
    frequency = 1 / 100 ** (torch.arange(width // 4) / (width // 4))
    angle = torch.arange(grid).float()[:, None] * frequency
    wave = torch.cat((angle.sin(), angle.cos()), 1)
    rows = wave[:, None].expand(-1, grid, -1)
    columns = wave[None].expand(grid, -1, -1)
    patches = torch.cat((rows, columns), -1).reshape(grid * grid, width)
    return torch.cat((torch.zeros(1, width), patches))[None]
