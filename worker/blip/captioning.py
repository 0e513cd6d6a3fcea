"""Encoded images to captions: which rows are decoded together, by which decoder and search."""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.blip.decoding import decode
from worker.blip.encoded import EncodedImages
from worker.blip.lexicon import Lexicon, in_order, runs
from worker.blip.mixed_search import mixed_search
from worker.blip.mixing import mixed_decoder, project_images
from worker.blip.options import CaptionOptions
from worker.blip.pack import Pack
from worker.blip.results import Caption
from worker.blip.results import captions as captions_of
from worker.blip.rows import groups
from worker.blip.search import search_for
from worker.blip.steps import Steps
from worker.blip.tokenizer import Tokenizer


@dataclass(frozen=True)
class Asked:
    """Of each image: its options, its prompt ([DEC] first), its pack."""

    options: Sequence[CaptionOptions]
    prompts: Sequence[Sequence[int]]
    packs: Sequence[Pack | None]

    def some(self, rows: Sequence[int]) -> "Asked":
        """Some of them, in this order."""
        return Asked(
            [self.options[row] for row in rows],
            [self.prompts[row] for row in rows],
            [self.packs[row] for row in rows],
        )


def caption_images(
    steps: Steps, tokenizer: Tokenizer, encoded: EncodedImages, asked: Asked
) -> list[list[Caption]]:
    """Caption images. steps, tokenizer: the checkpoint's.

    Batches with packs take their steps as they come: a static shape is of one decoder.
    """
    captions: list[list[Caption]] = [[] for _ in asked.options]
    for members in groups(asked.options, [len(prompt) for prompt in asked.prompts]):
        own = [asked.packs[row] for row in members]
        if any(pack is not own[0] for pack in own):
            lexicons = [Lexicon.of(pack, tokenizer, steps.decoder) for pack in own]
            order = in_order(own, lexicons)
            members, lexicons = [members[at] for at in order], [lexicons[at] for at in order]
            found = _mixed(steps, encoded.some(members), asked.some(members), lexicons)
        else:
            every = len(members) == len(encoded)
            images = encoded if every else encoded.some(members)
            found = _alike(steps, tokenizer, images, asked.some(members))
        for row, best in zip(members, found, strict=True):
            captions[row] = best
    return captions


def _alike(
    steps: Steps, tokenizer: Tokenizer, encoded: EncodedImages, asked: Asked
) -> list[list[Caption]]:
    """Of images that all have one pack, or none."""
    pack = asked.packs[0]
    if pack is not None and pack.decoder is not None:
        steps, tokenizer = Steps(pack.decoder, static=False, capture=False), pack.tokenizer
    cross = steps.decoder.text.project_images(encoded.embeddings)
    search = search_for(asked.options, asked.prompts, tokenizer, cross.device)
    decode(steps, cross, asked.prompts, search, encoded.key_mask)
    return captions_of(search.hypotheses(), asked.options, tokenizer)


def _mixed(
    steps: Steps, encoded: EncodedImages, asked: Asked, lexicons: Sequence[Lexicon]
) -> list[list[Caption]]:
    """Of images with several packs, in the order of `in_order`."""
    base = steps.decoder
    cross = project_images(base, asked.packs, encoded.embeddings)
    search = mixed_search(asked.options, asked.prompts, lexicons, cross.device)
    mixed = Steps(mixed_decoder(base, asked.packs, lexicons), static=False, capture=False)
    decode(mixed, cross, asked.prompts, search, encoded.key_mask)
    return [
        captions
        for found, (one, rows) in zip(search.hypotheses(), runs(lexicons), strict=True)
        for captions in captions_of(found, asked.options[rows], one.tokenizer)
    ]
