"""One image against many texts: what matching costs beyond its parts, and beside transformers.

`python -m worker.blip.bench.match`, also called `captionq-worker bench match`.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.blip.bench.compare import arithmetic
from worker.blip.bench.noise import coarse_noise
from worker.blip.bench.reference import MatchReference
from worker.blip.bench.sized import add_size, count, sized
from worker.blip.bench.timing import medians
from worker.blip.device import DTYPES
from worker.blip.encoded import EncodedImages
from worker.blip.engine import Engine
from worker.blip.hardware import Hardware, hardware
from worker.blip.images import Images
from worker.blip.results import Match

MOST_OVER_PARTS = 1.3
LEAST_TIMES_FASTER = 5.0
TEXTS_PER_CALL = 16  # of transformers' batched calls: it attends eagerly to as many images
_LETTERS = "abcdefghijklmnopqrstuvwxyz"  # every BERT vocabulary has these, a token each
_SHORTEST, _LONGEST = 4, 14  # letters of a text; [CLS] and [SEP] come round them


@dataclass(frozen=True)
class MatchResult:
    """What matching one image with `texts` texts took; times are medians, in milliseconds.

    match_ms: Engine.match, pixels to scores, no text seen before. cached_ms: the same, the texts'
    embeddings being known. text_ms: match of the encoded image, so ITM and text embeddings.
    encode_ms: the ViT. over_parts: match over the sum of these two. transformers_ms: both heads of
    BlipForImageTextRetrieval, one text a call; transformers_batched_ms: 16 texts a call;
    times_faster, times_faster_batched: these over match. They, and largest_difference, of any ITM
    logit or ITC cosine, are None without a reference.
    """

    model: str
    device: str
    dtype: str
    texts: int
    repeats: int
    match_ms: float
    cached_ms: float
    text_ms: float
    encode_ms: float
    over_parts: float
    transformers_ms: float | None
    transformers_batched_ms: float | None
    times_faster: float | None
    times_faster_batched: float | None
    largest_difference: float | None
    hardware: Hardware


def measure_match(
    name: str,
    folder: Path,
    dtype: str = "float32",
    texts: int = 64,
    repeats: int = 3,
    device: str = "auto",
    reference: bool = True,
) -> MatchResult:
    """Measure, after a first call of each side to warm up; the sides take turns in going first.

    transformers warms up with a text, or with 16: all of them take minutes. Both put [CLS] at
    position 0, as transformers does, and it computes in our floating-point type.
    Raises CheckpointError, DeviceUnavailable, OutOfMemory, ValueError.
    """
    engine = Engine.load(folder, device=device, dtype=dtype, tasks=["match"])
    images, words = coarse_noise(1, engine.image_size), different_texts(texts)
    encoded = engine.encode(images)

    def match(images: Images | EncodedImages, anew: bool = True) -> list[Match]:
        if anew:
            engine.text_cache.clear()
        return engine.match(images, words, position_zero="cls")[0]

    sides: dict[str, Callable[[], Any]] = {
        "match": lambda: match(images),
        "cached": lambda: match(images, anew=False),
        "text": lambda: match(encoded),
        "encode": lambda: engine.encode(images),
    }
    for call in sides.values():
        call()
    answers: list[tuple[Tensor, Tensor]] = []
    if reference:
        on, pixel_values = torch.device(engine.device), engine.normalised(images)
        theirs = MatchReference(folder, arithmetic(dtype), on)
        for per_call in (1, TEXTS_PER_CALL):
            theirs.match(pixel_values, words[:per_call], per_call)
        sides["transformers"] = lambda: answers.append(theirs.match(pixel_values, words))
        sides["batched"] = lambda: theirs.match(pixel_values, words, TEXTS_PER_CALL)
    took = medians(sides, repeats, torch.device(engine.device))
    return MatchResult(
        model=name,
        device=engine.device,
        dtype=engine.dtype,
        texts=texts,
        repeats=repeats,
        match_ms=1e3 * took["match"],
        cached_ms=1e3 * took["cached"],
        text_ms=1e3 * took["text"],
        encode_ms=1e3 * took["encode"],
        over_parts=took["match"] / (took["text"] + took["encode"]),
        transformers_ms=1e3 * took["transformers"] if reference else None,
        transformers_batched_ms=1e3 * took["batched"] if reference else None,
        times_faster=took["transformers"] / took["match"] if reference else None,
        times_faster_batched=took["batched"] / took["match"] if reference else None,
        largest_difference=difference(match(images), *answers[0]) if reference else None,
        hardware=hardware(torch.device(engine.device)),
    )


def difference(ours: Sequence[Match], logits: Tensor, cosines: Tensor) -> float:
    """The largest difference of any ITM logit [texts, 2] or ITC cosine [texts]."""
    itm = torch.tensor([match.itm_logits for match in ours]) - logits
    itc = torch.tensor([match.itc_cosine for match in ours]) - cosines
    return max(itm.abs().max().item(), itc.abs().max().item())


def lines(result: MatchResult) -> str:
    """A result in a few lines."""
    case = (
        f"{result.model}, {result.dtype} on {result.device}: 1 image x {result.texts} texts, "
        f"medians of {result.repeats}\n({result.hardware})"
    )
    ours = (
        f"match {result.match_ms:.0f} ms; {result.cached_ms:.0f} ms where the texts' embeddings "
        "are known"
    )
    parts = (
        f"text side alone {result.text_ms:.0f} ms, image encode {result.encode_ms:.0f} ms: match "
        f"takes {result.over_parts:.2f} times their sum (at most {MOST_OVER_PARTS})"
    )
    told = [case, ours, parts]
    if result.times_faster is not None:
        told.append(
            f"transformers, both heads, a text a call {result.transformers_ms:.0f} ms: "
            f"{result.times_faster:.1f} times as long (at least {LEAST_TIMES_FASTER:g}); "
            f"{TEXTS_PER_CALL} texts a call {result.transformers_batched_ms:.0f} ms: "
            f"{result.times_faster_batched:.1f} times"
        )
        told.append(f"largest difference of a logit or cosine {result.largest_difference:.1e}")
    return "\n".join(told)


def different_texts(texts: int) -> list[str]:
    """Distinct texts of 4 to 14 words of a letter each: 6 to 16 tokens."""
    rng = random.Random(0)
    found: dict[str, None] = {}
    while len(found) < texts:
        found[" ".join(rng.choices(_LETTERS, k=rng.randint(_SHORTEST, _LONGEST)))] = None
    return list(found)


def main(
    arguments: Sequence[str] | None = None, prog: str = "python -m worker.blip.bench.match"
) -> int:
    """Measure, print, and answer 0."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="One image against many texts: match, its parts, and transformers beside it.",
    )
    add_size(parser)
    parser.add_argument("--texts", type=count, default=64)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--repeats", type=count, default=3, help="of which the medians are taken")
    parser.add_argument(
        "--reference",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run transformers beside, which takes most of the time",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        name, folder = sized(args.size, Path(temporary), ["match"])
        result = measure_match(
            name, folder, args.dtype, args.texts, args.repeats, args.device, args.reference
        )
    print(json.dumps(asdict(result)) if args.json else lines(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
