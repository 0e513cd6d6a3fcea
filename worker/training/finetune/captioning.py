"""Learning to caption: the log-probability of each caption's tokens, before its image."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.training.finetune.embedded import Embedded
from worker.training.finetune.rows import Row
from worker.training.finetune.texts import IGNORED, TokenRows


class Captioning(nn.Module):
    """The decoder's loss, in nats, summed over the tokens of some rows."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, ids: Tensor, labels: Tensor) -> Tensor:
        """The sum of the cross-entropy of labels [n, t], IGNORED left out; a scalar.

        images: [n, tokens, hidden] after the ViT. ids: [n, t], [DEC] first; they see no pads, which
        come after them. Only what has a label goes through the vocabulary's product.
        """
        decoder = self.model.text_decoder
        read = decoder.bert(
            ids, encoder_hidden_states=images, is_decoder=True, use_cache=False
        ).last_hidden_state
        wanted = labels[:, 1:] != IGNORED
        logits = decoder.cls(read[:, :-1][wanted]).float()
        return functional.cross_entropy(logits, labels[:, 1:][wanted], reduction="sum")


class CaptionRows:
    """Rows as batches for `Captioning`."""

    def __init__(self, rows: Sequence[Row], tokens: TokenRows, embedded: Embedded) -> None:
        self._pictures = [row.picture for row in rows]
        self._tokens, self._embedded = tokens, embedded

    def __len__(self) -> int:
        return len(self._pictures)

    def batch(self, rows: Tensor, device: torch.device) -> dict[str, Tensor]:
        """What the module is given for these rows."""
        ids, labels = self._tokens.some(rows)
        images = self._embedded.of([self._pictures[row] for row in rows.tolist()])
        return {"images": images, "ids": ids.to(device), "labels": labels.to(device)}

    def weights(self, parts: Sequence[Tensor], processes: int) -> list[float]:
        """What the loss of each part of a step is multiplied with.

        Parts are spread over processes, whose gradients are averaged; the sum is then the mean over
        the tokens of the step, however it is divided.
        """
        return [processes / sum(map(self._count, parts))] * len(parts)

    def _count(self, rows: Tensor) -> int:
        return int(self._tokens.lengths[rows].sum()) - len(rows)

    @torch.no_grad()
    def figures(self, module: nn.Module, device: torch.device, size: int) -> dict[str, float]:
        """loss: nats a token, over all rows."""
        every = torch.arange(len(self))
        sums = [module(**self.batch(part, device)).item() for part in torch.split(every, size)]
        return {"loss": sum(sums) / self._count(every)}
