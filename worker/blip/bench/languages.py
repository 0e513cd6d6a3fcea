"""What it costs to mix languages in a batch: rows of several packs, against rows of one.

`python -m worker.blip.bench.languages`, also called `captionq-worker bench languages`.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from worker.blip.bench.noise import coarse_noise
from worker.blip.bench.sized import add_size, count, sized
from worker.blip.bench.timing import times
from worker.blip.device import DTYPES
from worker.blip.engine import Engine
from worker.blip.hardware import Hardware, hardware
from worker.blip.options import CaptionOptions
from worker.blip.pack import Pack
from worker.blip.random_pack import PackShape, write_random_pack

LEAST_SHARE = 0.85
"""Of the throughput of a batch in one language, that a batch in several has."""
TARGETS = {"all": ".*", "query-value": r".*\.(query|value)"}


@dataclass(frozen=True)
class LanguagesResult:
    """The fastest of `repeats` runs of a batch, pixels to captions, in milliseconds.

    encoded: decoding alone, which is all that packs change. plain_ms: without packs. single_ms: all
    rows of one pack. mixed_ms: rows of all packs in turns, in one call. grouped_ms: the same rows,
    encoded at once, then a call for each pack.
    mixed_share, grouped_share: throughput over that of single_ms.
    """

    model: str
    device: str
    dtype: str
    batch: int
    beams: int
    tokens: int
    packs: int
    rank: int
    targets: str
    repeats: int
    encoded: bool
    plain_ms: float
    single_ms: float
    mixed_ms: float
    grouped_ms: float
    mixed_share: float
    grouped_share: float
    hardware: Hardware


def measure_languages(
    name: str,
    engine: Engine,
    packs: Sequence[Pack],
    shape: PackShape,
    batch: int = 12,
    beams: int = 3,
    tokens: int = 12,
    repeats: int = 5,
    encoded: bool = False,
) -> LanguagesResult:
    """Measure, from images or, with `encoded`, from what the ViT makes of them.

    After one call of each side to warm up; the sides take turns in going first.

    Raises OutOfMemory, ValueError.
    """
    pixels = coarse_noise(batch, engine.image_size)
    images = engine.encode(pixels) if encoded else pixels
    options = CaptionOptions(num_beams=beams, min_new_tokens=tokens, max_new_tokens=tokens)
    in_turns = [packs[row % len(packs)] for row in range(batch)]

    def grouped() -> Any:
        seen = engine.encode(images)
        for start, pack in enumerate(packs):
            rows = list(range(start, batch, len(packs)))
            engine.caption(seen.some(rows), options, pack)

    sides = {
        "plain": lambda: engine.caption(images, options),
        "single": lambda: engine.caption(images, options, packs[0]),
        "mixed": lambda: engine.caption(images, options, in_turns),
        "grouped": grouped,
    }
    for call in sides.values():
        call()
    on = torch.device(engine.device)
    took = {name: min(seconds) for name, seconds in times(sides, repeats, on).items()}
    return LanguagesResult(
        model=name,
        device=engine.device,
        dtype=engine.dtype,
        batch=batch,
        beams=beams,
        tokens=tokens,
        packs=len(packs),
        rank=shape.rank,
        targets=shape.targets,
        repeats=repeats,
        encoded=encoded,
        **{f"{side}_ms": 1e3 * seconds for side, seconds in took.items()},
        mixed_share=took["single"] / took["mixed"],
        grouped_share=took["single"] / took["grouped"],
        hardware=hardware(on),
    )


def lines(result: LanguagesResult) -> str:
    """A result in a few lines."""
    search = "greedy" if result.beams == 1 else f"{result.beams} beams"
    search += ", decoding alone" if result.encoded else ""
    return (
        f"{result.model}, {result.dtype} on {result.device}: {result.batch} images, {search}, "
        f"{result.tokens} tokens each, {result.packs} packs of rank {result.rank} on "
        f"{result.targets}, the fastest of {result.repeats}\n({result.hardware})\n"
        f"no pack {result.plain_ms:.0f} ms, one pack {result.single_ms:.0f} ms\n"
        f"{result.packs} packs in one batch {result.mixed_ms:.0f} ms: "
        f"{result.mixed_share:.0%} of the throughput (at least {LEAST_SHARE:.0%})\n"
        f"each pack's rows decoded apart {result.grouped_ms:.0f} ms: {result.grouped_share:.0%}"
    )


def main(
    arguments: Sequence[str] | None = None, prog: str = "python -m worker.blip.bench.languages"
) -> int:
    """Measure, print, and answer 0."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Batches in several languages, against batches in one. The packs are random, "
        "which are as fast as any.",
    )
    add_size(parser)
    parser.add_argument("--batch", type=count, default=12, help="images")
    parser.add_argument("--beams", type=count, default=3, help="1 is greedy search")
    parser.add_argument("--tokens", type=count, default=12, help="new tokens of every caption")
    parser.add_argument("--packs", type=count, default=3, help="languages in a batch")
    parser.add_argument("--rank", type=count, default=16, help="of each layer's LoRA")
    parser.add_argument("--targets", choices=TARGETS, default="all", help="layers that have LoRA")
    parser.add_argument("--words", type=count, help="tokens of a pack; by default the model's")
    parser.add_argument(
        "--encoded", action="store_true", help="decoding alone, which is all that packs change"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--repeats", type=count, default=5, help="of which the fastest counts")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        name, folder = sized(args.size, Path(temporary, "base"))
        engine = Engine.load(folder, device=args.device, dtype=args.dtype, tasks=["caption"])
        words = args.words or engine._tokenizer.vocab_size
        shape = PackShape(targets=TARGETS[args.targets], rank=args.rank, words=words)
        packs = [
            engine.load_pack(
                write_random_pack(Path(temporary, f"{n}"), folder, f"pack{n}", shape, seed=n)
            )
            for n in range(args.packs)
        ]
        result = measure_languages(
            name,
            engine,
            packs,
            shape,
            args.batch,
            args.beams,
            args.tokens,
            args.repeats,
            args.encoded,
        )
    print(json.dumps(asdict(result)) if args.json else lines(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
