"""The command: `python -m worker.blip.bench`, also called `captionq-worker bench engine`."""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from worker.blip.bench.compare import Case, arithmetic, measure
from worker.blip.bench.kernels import kernel_shares
from worker.blip.bench.report import HEADER, lines, row
from worker.blip.bench.sized import SHAPES, count, sized
from worker.blip.device import DTYPES
from worker.blip.hub import resolve
from worker.blip.options import MAX_BEAMS

TABLE = (
    ("bfloat16", "bfloat16", 1),
    ("bfloat16", "bfloat16", 5),
    ("bfloat16", "float32", 1),
    ("bfloat16", "float32", 5),
    ("float32", "float32", 1),
    ("float32", "float32", 5),
)
"""(dtype, reference dtype, beams) of the rows of --table."""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m worker.blip.bench") -> int:
    """Measure, print, and answer 0."""
    args = _parser(prog).parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        name, folder = _checkpoint(args, Path(temporary))
        reference_dtype = args.reference_dtype or _name_of(args.dtype)
        case = Case(
            model=name,
            folder=folder,
            device=args.device,
            dtype=args.dtype,
            reference_dtype=reference_dtype if args.reference else None,
            batch=args.batch,
            beams=args.beams,
            tokens=args.tokens,
            rounds=args.rounds,
        )
        if args.table:
            _print_table(case)
        elif args.profile:
            for kernel, share in kernel_shares(case):
                print(f"{share:6.1%}  {kernel}")
        else:
            result = measure(case)
            print(json.dumps(asdict(result)) if args.json else lines(result))
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description="The engine against transformers' generate, side by side."
    )
    parser.add_argument("--size", choices=[*SHAPES, "bundled"], default="base")
    parser.add_argument(
        "--random-weights",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="base and large: make a random checkpoint, or take the published one from the hub",
    )
    parser.add_argument("--model", help="a folder or a hub id, instead of --size")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument(
        "--reference-dtype",
        choices=[name for name, dtype in DTYPES.items() if dtype.is_floating_point],
        help="of transformers' side; by default --dtype",
    )
    parser.add_argument(
        "--reference",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run transformers beside, which takes most of the time",
    )
    parser.add_argument("--batch", type=count, default=16, help="images")
    parser.add_argument(
        "--beams", type=int, choices=range(1, MAX_BEAMS + 1), default=3, help="1 is greedy search"
    )
    parser.add_argument("--tokens", type=count, default=12, help="new tokens of every caption")
    parser.add_argument("--rounds", type=count, default=3, help="of which the medians are taken")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--table",
        action="store_true",
        help="greedy and 5 beams in bfloat16 and float32 as a markdown table",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="instead, which of our kernels take the time",
    )
    return parser


def _checkpoint(args: argparse.Namespace, temporary: Path) -> tuple[str, Path]:
    """The name to show, and the folder."""
    if args.model:
        return args.model, resolve(args.model).folder
    if args.size == "bundled" or args.random_weights:
        return sized(args.size, temporary)
    return args.size, resolve(f"Salesforce/blip-image-captioning-{args.size}").folder


def _print_table(case: Case) -> None:
    """Rows as they come; without a reference, the cases that differ in nothing else once."""
    print(HEADER, flush=True)
    cases = [
        replace(
            case,
            dtype=dtype,
            reference_dtype=reference_dtype if case.reference_dtype else None,
            beams=beams,
        )
        for dtype, reference_dtype, beams in TABLE
    ]
    for each in dict.fromkeys(cases):
        result = measure(each)
        print(row(result), flush=True)
    print(
        f"\nBatch {case.batch}, {case.tokens} forced tokens, medians of {case.rounds} rounds; "
        f"{result.hardware}."
    )


def _name_of(dtype: str) -> str:
    """The name of the floating-point type that a dtype is compared with."""
    return next(name for name, kind in DTYPES.items() if kind == arithmetic(dtype))
