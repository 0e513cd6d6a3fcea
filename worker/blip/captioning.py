"""Encoded images to captions: which rows are decoded together, with which pack, by which search."""

from collections.abc import Sequence

from worker.blip.decoding import decode
from worker.blip.encoded import EncodedImages
from worker.blip.options import CaptionOptions
from worker.blip.pack import Pack
from worker.blip.results import Caption
from worker.blip.results import captions as captions_of
from worker.blip.rows import groups
from worker.blip.steps import Steps
from worker.blip.tokenizer import Tokenizer


def caption_rows(
    steps: Steps,
    encoded: EncodedImages,
    rows: Sequence[CaptionOptions],
    prompts: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
) -> list[list[Caption]]:
    """Caption images, all with one vocabulary. prompts: token ids of each row, [DEC] first."""
    captions: list[list[Caption]] = [[] for _ in rows]
    cross = steps.decoder.text.project_images(encoded.embeddings)
    key_mask = encoded.key_mask
    for members in groups(rows, [len(prompt) for prompt in prompts]):
        found = decode(
            steps,
            cross if len(members) == len(rows) else cross[:, :, members],
            [prompts[i] for i in members],
            [rows[i] for i in members],
            tokenizer,
            None if key_mask is None else key_mask[members],
        )
        answers = captions_of(found, [rows[i] for i in members], tokenizer)
        for index, best in zip(members, answers, strict=True):
            captions[index] = best
    return captions


def steps_of(own: Steps, pack: Pack | None) -> Steps:
    """The decoder of a pack's rows; a batch with packs takes its steps as they come."""
    if pack is None or pack.decoder is None:
        return own
    return Steps(pack.decoder, static=False, capture=False)
