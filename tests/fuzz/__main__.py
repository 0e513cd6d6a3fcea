"""`make fuzz`: damaged images through the decoder, for as long as wanted.

The inputs follow from the seed alone. They are decoded in a process of their own, so that one
that crashes or hangs it is found out. Ends with status 1 when anything was found.
"""

import random
import sys
from pathlib import Path
from typing import Annotated

import typer

from tests.fuzz.hunt import hunt


def main(
    seconds: Annotated[float, typer.Option(help="How long.")] = 300,
    seed: Annotated[int | None, typer.Option(help="Of an earlier run, to repeat it.")] = None,
    target: Annotated[str, typer.Option(help="A name in tests.fuzz.targets.")] = "in_this_process",
    out: Annotated[Path, typer.Option(help="Where inputs are saved.")] = Path(".make/fuzz"),
) -> None:
    """Fuzz a decoder."""
    chosen = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    print(f"seed {chosen}, {seconds:g} s, {target}", flush=True)

    def progress(inputs: int, elapsed_s: float, findings: int) -> None:
        print(f"{elapsed_s:6.0f} s  {inputs:9,} inputs  {findings} findings", flush=True)

    findings = hunt(target, chosen, seconds, out, progress=progress)
    for finding in findings:
        print(f"FOUND by SEED={chosen}: {finding.what}\n  saved: {finding.path}")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    typer.run(main)
