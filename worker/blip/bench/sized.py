"""What a bench measures by its size: the bundled checkpoint, or one of random weights."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from worker.blip.random_checkpoint import BASE, LARGE, write_random_checkpoint

SHAPES = {"base": BASE, "large": LARGE}
BUNDLED = Path(__file__).parents[2] / "checkpoints" / "scenes"


def add_size(parser: argparse.ArgumentParser) -> None:
    """The option --size."""
    parser.add_argument(
        "--size",
        choices=[*SHAPES, "bundled"],
        default="base",
        help="base and large have random weights, which are as fast as any",
    )


def sized(size: str, temporary: Path, tasks: Sequence[str] = ("caption",)) -> tuple[str, Path]:
    """The name to show, and the folder; one of random weights is written into `temporary`."""
    if size == "bundled":
        return size, BUNDLED
    folder = write_random_checkpoint(temporary, SHAPES[size], tasks, spread=2.0)
    return f"{size}, random weights", folder


def count(text: str) -> int:
    """A number of at least 1, as argparse reads it."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number
