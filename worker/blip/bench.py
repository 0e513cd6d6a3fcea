"""The engine against transformers' generate, side by side: `python -m worker.blip.bench`.

Both caption the same images with the same fixed number of tokens, from pixels of the right size
(uint8 here, normalised floats there) to token ids on the host. Rounds alternate who goes first;
the figures are medians. Needs torch and transformers alone.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import BlipForConditionalGeneration

from worker.blip.engine import DTYPES, Engine
from worker.blip.hub import resolve
from worker.blip.options import CaptionOptions
from worker.blip.random_checkpoint import BASE, LARGE, write_random_checkpoint

SHAPES = {"base": BASE, "large": LARGE}
BUNDLED = Path(__file__).parents[1] / "checkpoints" / "scenes"


@dataclass(frozen=True)
class Result:
    """Medians over the rounds; gemm_fraction is our arithmetic over the device's own GEMM rate."""

    model: str
    device: str
    dtype: str
    batch: int
    beams: int
    tokens: int
    rounds: int
    images_per_s: float
    transformers_images_per_s: float
    ratio: float
    gemm_fraction: float
    same_token_ids: float


def compare(
    folder: Path,
    name: str,
    device: str,
    dtype: str,
    options: CaptionOptions,
    batch: int,
    rounds: int,
) -> Result:
    """Time `rounds` calls of each side, after one call of each to warm up."""
    engine = Engine.load(folder, device=device, dtype=dtype, tasks=["caption"])
    reference = BlipForConditionalGeneration.from_pretrained(folder, dtype=DTYPES[dtype])
    reference.to(engine.device).eval()
    images = coarse_noise(batch, engine.image_size)
    pixel_values = engine.normalised(images)

    def ours() -> list[list[int]]:
        return [row[0].token_ids for row in engine.caption(images, options)]

    def theirs() -> list[list[int]]:
        return reference_ids(reference, pixel_values, options)

    same = sum(a == b for a, b in zip(ours(), theirs(), strict=True)) / batch
    seconds: dict[Callable[[], Any], list[float]] = {ours: [], theirs: []}
    for number in range(rounds):
        for side in (ours, theirs) if number % 2 == 0 else (theirs, ours):
            seconds[side].append(timed(side))
    mine, reference_s = (statistics.median(seconds[side]) for side in (ours, theirs))
    with FlopCounterMode(display=False) as counter:
        ours()
    rate = gemm_rate(DTYPES[dtype], torch.device(engine.device))
    return Result(
        model=name,
        device=engine.device,
        dtype=dtype,
        batch=batch,
        beams=options.num_beams,
        tokens=options.max_new_tokens,
        rounds=rounds,
        images_per_s=batch / mine,
        transformers_images_per_s=batch / reference_s,
        ratio=reference_s / mine,
        gemm_fraction=counter.get_total_flops() / mine / rate,
        same_token_ids=same,
    )


def reference_ids(model: Any, pixel_values: Tensor, options: CaptionOptions) -> list[list[int]]:
    """transformers' token ids, without [DEC]."""
    text = model.config.text_config
    prompt = [text.bos_token_id, text.sep_token_id]  # the last column is dropped
    output = model.generate(
        pixel_values,
        input_ids=torch.tensor([prompt] * len(pixel_values), device=pixel_values.device),
        num_beams=options.num_beams,
        max_new_tokens=options.max_new_tokens,
        min_new_tokens=options.min_new_tokens,
    )
    token_ids: list[list[int]] = output[:, 1:].tolist()
    return token_ids


def coarse_noise(count: int, size: tuple[int, int]) -> Tensor:
    """uint8 [count, 3, H, W] of 4x4 coloured fields: images that a random ViT can tell apart."""
    generator = torch.Generator().manual_seed(0)
    fields = torch.randint(0, 256, (count, 3, 4, 4), generator=generator).float()
    return torch.nn.functional.interpolate(fields, size, mode="nearest").to(torch.uint8)


def gemm_rate(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """FLOP/s of one square matrix product, the best of five."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def product() -> float:
        return float((left @ right)[0, 0])

    product()
    return 2 * size**3 / min(timed(product) for _ in range(5))


def timed(action: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call, whose result is on the host when it returns."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a line or JSON, and answer 0."""
    parser = argparse.ArgumentParser(prog="python -m worker.blip.bench", description=__doc__)
    parser.add_argument("--size", choices=["base", "large", "bundled"], default="base")
    parser.add_argument(
        "--random-weights",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="base and large: make a random checkpoint, or take the published one from the hub",
    )
    parser.add_argument("--model", help="a folder or a hub id, instead of --size")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a sentence")
    args = parser.parse_args(arguments)
    options = CaptionOptions(
        num_beams=args.beams, min_new_tokens=args.tokens, max_new_tokens=args.tokens
    )
    with tempfile.TemporaryDirectory() as temporary:
        if args.model or args.size == "bundled" or not args.random_weights:
            published = f"Salesforce/blip-image-captioning-{args.size}"
            name = args.model or (str(BUNDLED) if args.size == "bundled" else published)
            folder = resolve(name).folder
            name = args.model or args.size
        else:
            name = f"{args.size}, random weights"
            folder = write_random_checkpoint(Path(temporary), SHAPES[args.size], spread=2.0)
        result = compare(folder, name, args.device, args.dtype, options, args.batch, args.rounds)
    if args.json:
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
    else:
        sys.stdout.write(
            f"{result.model}, {result.dtype} on {result.device}, batch {result.batch}, "
            f"{result.beams} beams, {result.tokens} tokens: {result.images_per_s:.2f} images/s, "
            f"transformers {result.transformers_images_per_s:.2f}, ratio {result.ratio:.2f}, "
            f"{result.gemm_fraction:.0%} of the GEMM rate, "
            f"{result.same_token_ids:.0%} of captions the same\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
