"""Learning to match: BLIP's ITC and ITM losses with hard negatives (Li et al. 2022, 3.2)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.training.evaluate import auc
from worker.training.finetune.embedded import Embedded
from worker.training.finetune.rows import Row
from worker.training.finetune.texts import TokenRows
from worker.training.joint import contrastive

TEMPERATURE = 0.07
"""Of ITC: what BLIP's training starts from. What it came to is not in the published files."""


class Matching(nn.Module):
    """The sum of the ITC and the ITM loss of some rows, each a mean, in nats.

    enc_id: what stands at position 0 for ITM ([ENC], or [CLS] where there is none).
    """

    def __init__(self, model: Any, enc_id: int) -> None:
        super().__init__()
        self.model = model
        self.enc_id = enc_id

    def forward(
        self, images: Tensor, ids: Tensor, mask: Tensor, positives: int, equal: Tensor
    ) -> Tensor:
        """A scalar.

        images: [n, tokens, hidden] after the ViT; the first `positives` belong to the text of the
        same row, the others do not. ids, mask: [n, t]. equal: bool [positives, n], where a text is
        right for an image. Negatives besides the labelled ones: for each image another's text, and
        for each text another's image, drawn by ITC similarity.
        """
        losses = []
        pairs = [torch.arange(len(ids))]
        texts = [torch.arange(len(ids))]
        similarity = self.cosines(images[:positives], ids, mask) / TEMPERATURE
        if positives < 2:
            # Nothing to contrast, but of several processes each has to have every gradient.
            losses.append(similarity.sum() * 0)
        else:
            losses.append(contrastive(similarity, equal, positives))
            square, right = similarity[:, :positives].detach(), equal[:, :positives]
            rows, hard = _hard(square, right)
            pairs.append(rows)
            texts.append(hard)
            rows, hard = _hard(square.T, right.T)
            pairs.append(hard)
            texts.append(rows)
        which, said = torch.cat(pairs).to(ids.device), torch.cat(texts).to(ids.device)
        logits = self.itm(images[which], ids[said], mask[said])
        truth = torch.zeros(len(which), dtype=torch.long, device=ids.device)
        truth[:positives] = 1
        losses.append(functional.cross_entropy(logits, truth))
        return torch.stack(losses).sum()

    def cosines(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """ITC: the cosine of every image with every text, [images, texts]."""
        read = self.model.text_encoder(ids, attention_mask=mask).last_hidden_state
        one = functional.normalize(self.model.vision_proj(images[:, 0]), dim=-1)
        two = functional.normalize(self.model.text_proj(read[:, 0]), dim=-1)
        return (one @ two.T).float()

    def itm(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """ITM's logits of pairs, float32 [n, 2]: no match, match."""
        first = torch.full_like(ids[:, :1], self.enc_id)
        read = self.model.text_encoder(
            torch.cat([first, ids[:, 1:]], dim=1),
            attention_mask=mask,
            encoder_hidden_states=images,
        ).last_hidden_state
        logits: Tensor = self.model.itm_head(read[:, 0]).float()
        return logits


def _hard(similarity: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """For each row that has one, a column that is not right, the more similar the likelier."""
    weights = similarity.softmax(dim=-1).clamp_min(1e-8).masked_fill(right, 0).cpu()
    rows = weights.sum(dim=-1).nonzero()[:, 0]
    return rows, torch.multinomial(weights[rows], 1)[:, 0] if len(rows) else rows


class MatchRows:
    """Rows as batches for `Matching`."""

    def __init__(self, rows: Sequence[Row], tokens: TokenRows, embedded: Embedded) -> None:
        self._tokens, self._embedded = tokens, embedded
        self._pictures = [row.picture for row in rows]
        self._match = torch.tensor([row.match for row in rows])
        images: dict[Any, int] = {}
        texts: dict[str, int] = {}
        self._image = torch.tensor([images.setdefault(r.picture, len(images)) for r in rows])
        self._text = torch.tensor([texts.setdefault(r.caption, len(texts)) for r in rows])
        self._right = {(images[r.picture], texts[r.caption]) for r in rows if r.match}

    def __len__(self) -> int:
        return len(self._pictures)

    def batch(self, rows: Tensor, device: torch.device) -> dict[str, Any]:
        """What the module is given for these rows."""
        rows = torch.cat([rows[self._match[rows]], rows[~self._match[rows]]])
        positives = int(self._match[rows].sum())
        image, text = self._image[rows], self._text[rows]
        said = text.tolist()
        equal = torch.tensor(
            [[self._is_right(one, other) for other in said] for one in image[:positives].tolist()],
            dtype=torch.bool,
        ).view(positives, len(said))
        ids, mask = self._ids(rows)
        return {
            "images": self._embedded.of([self._pictures[row] for row in rows.tolist()]),
            "ids": ids.to(device),
            "mask": mask.to(device),
            "positives": positives,
            "equal": equal.to(device),
        }

    def _is_right(self, image: int, text: int) -> bool:
        """Whether any row says so: captions of one image are not wrong for it, nor equal ones."""
        return (image, text) in self._right

    def weights(self, parts: Sequence[Tensor], _processes: int) -> list[float]:
        """What the loss of each part of a step is multiplied with."""
        return [1 / len(parts)] * len(parts)

    @torch.no_grad()
    def figures(self, module: Any, device: torch.device, size: int) -> dict[str, float]:
        """loss: ITM's, nats a pair; auc: of ITM, ROC, over the rows and as many wrong pairs.

        Wrong pairs are the labelled ones; without any, each image with the next other caption.
        """
        images = torch.arange(len(self))
        texts, truth = images, self._match
        if bool(truth.all()):
            other = torch.tensor([self._another(row) for row in images.tolist()])
            images, texts = torch.cat([images, images]), torch.cat([texts, other])
            truth = torch.cat([truth, torch.zeros_like(truth)])
            told = self._text[images] != self._text[texts]
            images, texts, truth = (x[told | truth] for x in (images, texts, truth))
        logits = []
        for which, said in zip(torch.split(images, size), torch.split(texts, size), strict=True):
            ids, mask = self._ids(said)
            seen = self._embedded.of([self._pictures[row] for row in which.tolist()])
            logits.append(module.itm(seen, ids.to(device), mask.to(device)).cpu())
        scores = torch.cat(logits)
        margins = (scores[:, 1] - scores[:, 0]).double()
        found = {"loss": functional.cross_entropy(scores, truth.long()).item()}
        if bool(truth.any()) and not bool(truth.all()):
            found["auc"] = auc(margins[truth].tolist(), margins[~truth].tolist())
        return found

    def _another(self, row: int) -> int:
        """The next row whose text is not right for the row's image; itself where there is none."""
        image = int(self._image[row])
        for step in range(1, len(self)):
            other = (row + step) % len(self)
            if not self._is_right(image, int(self._text[other])):
                return other
        return row

    def _ids(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        ids, labels = self._tokens.some(rows)
        return ids, (labels >= 0).long()
