"""The two ways of reading a text before an image, as explanations need them: replayed, and scored.

A score says how well the text and the image go together, token by token where the model says so:
the decoder's log-probability of each token, the matching encoder's one logit for all.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from worker.blip.matching import Matcher
from worker.blip.replay import Replayed, Texts, product, replay
from worker.blip.text import TextDecoder, TextModel


class Reader(Protocol):
    """What explanations ask of a part of the model. Rows are token ids with all that goes round."""

    @property
    def text(self) -> TextModel:
        """The stack that reads."""

    @property
    def predicts(self) -> bool:
        """Whether scores are of single tokens."""

    def texts(self, rows: Sequence[Sequence[int]], device: torch.device) -> Texts:
        """Rows, padded."""

    def scores(self, replayed: Replayed, texts: Texts) -> Tensor:
        """float32 [B, T]: of each token, 0 where there is none."""


@dataclass(frozen=True)
class CaptionReader:
    """The caption decoder: each token's log-probability, given those before it."""

    decoder: TextDecoder
    pad_id: int
    predicts = True

    @property
    def text(self) -> TextModel:
        """The decoder's stack."""
        return self.decoder.text

    def texts(self, rows: Sequence[Sequence[int]], device: torch.device) -> Texts:
        """Rows, each seeing what is before it."""
        return Texts.causal(rows, self.pad_id, device)

    def scores(self, replayed: Replayed, texts: Texts) -> Tensor:
        """Log-probabilities under the model, before any processor; the first token's is 0."""
        decoder, hidden = self.decoder, replayed.hidden[:, :-1]
        hidden = decoder.transform_norm(functional.gelu(product(decoder.transform, hidden)))
        logprobs = product(decoder.vocabulary, hidden).float().log_softmax(dim=-1)
        own = logprobs.gather(2, texts.token_ids[:, 1:, None])[..., 0]
        return functional.pad(own * texts.valid[:, 1:], (1, 0))


@dataclass(frozen=True)
class MatchReader:
    """The matching encoder: the logit of "match", the same for every token."""

    matcher: Matcher
    pad_id: int
    predicts = False

    @property
    def text(self) -> TextModel:
        """The encoder's stack."""
        return self.matcher.text

    def texts(self, rows: Sequence[Sequence[int]], device: torch.device) -> Texts:
        """Rows, seeing all of themselves."""
        return Texts.bidirectional(rows, self.pad_id, device)

    def scores(self, replayed: Replayed, texts: Texts) -> Tensor:
        """ITM's logit of "match", read from position 0."""
        logits: Tensor = self.matcher.itm_head(replayed.hidden[:, 0])
        return logits[:, 1:].float() * texts.valid


def read(
    reader: Reader,
    embeddings: Tensor,
    texts: Texts,
    key_mask: Tensor | None = None,
    layers: Collection[int] = (),
    gradients: bool = False,
) -> tuple[Replayed, Tensor]:
    """Replay texts before images, [N, S, hidden] as the ViT gives them, and score them."""
    cross = reader.text.project_images(embeddings)
    replayed = replay(reader.text, texts, cross, key_mask, layers, gradients)
    with torch.set_grad_enabled(gradients):
        return replayed, reader.scores(replayed, texts)
