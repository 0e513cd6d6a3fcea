"""Fine-tuning at full size: python -m tests.finetune_base [PART ...] [--steps N] [--size base|tiny]

On a random BLIP-base and 16 pairs, each part in processes of its own:

memory    peak resident memory of LoRA and of --full, the same rows at a time
resume    a run killed with SIGKILL and gone on with, its losses compared to the last digit
captions  LoRA until the 16 captions are known by heart: how many the engine says, greedy

Without a PART: all. BLIP-base takes about 4 GB and, on two cores, half an hour.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.blip_checkpoints import BASE, TINY, noise_images, write_random_checkpoint
from tests.finetuned import captions, losses, write_pairs
from worker.blip import Engine

PAIRS = 16
PARTS = ("memory", "resume", "captions")
FEW = 3
"""Steps that a measure of memory takes: the optimizer has its state after one."""


@dataclass(frozen=True)
class Ended:
    """A run that ended. peak_bytes: the most resident memory of its process."""

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Place:
    """A checkpoint, its pairs, and where runs write."""

    folder: Path

    @classmethod
    def made(cls, folder: Path, size: str) -> "Place":
        shape = {"base": BASE, "tiny": TINY}[size]
        write_random_checkpoint(folder / "model", shape, ["caption"], spread=3.0)
        write_pairs(folder / "data", captions(PAIRS))
        return cls(folder)

    def start(self, name: str, steps: int, *options: str) -> "subprocess.Popen[bytes]":
        """`captionq-worker finetune`, four rows at a time, sixteen a step."""
        pairs, output, model = (
            str(self.folder / part) for part in ("data/pairs.jsonl", name, "model")
        )
        command = [sys.executable, "-m", "worker", "finetune", pairs, "-o", output, "--name", "run",
                   "--model", model, "--steps", str(steps), "--batch", "4", "--accumulate", "4",
                   "--cpu", *options]  # fmt: skip
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def run(self, name: str, steps: int, *options: str) -> Ended:
        """A run to its end. Raises RuntimeError with what it said where it fails."""
        began_s = time.monotonic()
        process = self.start(name, steps, *options)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(said)
        return Ended(time.monotonic() - began_s, usage.ru_maxrss * 1024)


def memory(place: Place) -> str:
    lora = place.run("memory-lora", FEW)
    full = place.run("memory-full", FEW, "--full")
    share = lora.peak_bytes / full.peak_bytes
    return (
        f"peak memory: LoRA {lora.peak_bytes / 2**20:,.0f} MiB, --full "
        f"{full.peak_bytes / 2**20:,.0f} MiB; {share:.0%}"
    )


def resume(place: Place, steps: int = 6) -> str:
    options = ("--save-every", "0", "--dropout", "0.1")
    place.run("whole", steps, *options)
    process = place.start("killed", steps, *options)
    log = place.folder / "killed.training" / "losses.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < steps // 2:
        if process.poll() is not None:
            raise RuntimeError("the run ended before it could be killed")
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = log.read_bytes().count(b"\n")
    place.run("killed", steps, *options)
    same = losses(place.folder / "killed") == losses(place.folder / "whole")
    return f"killed after step {done} of {steps}: losses {'equal' if same else 'DIFFER'}"


def by_heart(place: Place, steps: int) -> str:
    ended = place.run("learned", steps, "--rate", "1e-3")
    engine = Engine.load(place.folder / "model", device="cpu", tasks=["caption"])
    pack = engine.load_pack(place.folder / "learned")
    rows = engine.caption(
        noise_images(PAIRS), packs=pack, num_beams=1, min_new_tokens=0, max_new_tokens=12
    )
    right = sum(row[0].text == text for row, text in zip(rows, captions(PAIRS), strict=True))
    last = losses(place.folder / "learned")[-1]["loss"]
    return (
        f"captions by heart: {right} of {PAIRS} after {steps} steps, loss {last:.4f}, "
        f"{ended.seconds:.0f} s"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fine-tuning measured at full size.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--size", choices=["base", "tiny"], default="base")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        place = Place.made(Path(folder), given.size)
        for part in given.parts or PARTS:
            match part:
                case "memory":
                    print(memory(place), flush=True)
                case "resume":
                    print(resume(place), flush=True)
                case "captions":
                    print(by_heart(place, given.steps), flush=True)
                case _:
                    parser.error(f"no part {part!r}: {', '.join(PARTS)}")


if __name__ == "__main__":
    main()
