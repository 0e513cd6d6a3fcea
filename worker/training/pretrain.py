"""Trains the bundled BLIP on scenes: joint ITC, ITM and LM losses (Li et al. 2022).

    python -m worker.training.pretrain -o DIRECTORY [--steps N] [--batch N] [--seed N]

Writes DIRECTORY as a model folder. Continues from DIRECTORY/training.pt where there is one: every
batch depends on the seed and the step alone, so an interrupted run goes on as if it had not been.
"""

import argparse
import math
import time
from pathlib import Path

import torch

from worker.training.dataset import batch, normalise
from worker.training.evaluate import evaluate_model
from worker.training.export import export
from worker.training.joint import Joint, configuration
from worker.training.reference import over
from worker.training.vocabulary import tokenizer

STATE, LOG = "training.pt", "training.log"
PEAK_RATE = 1.2e-3
WARM_UP = 0.06
CHECK_EVERY = 500


def two_shapes(progress: float) -> float:
    """The share of two-shape scenes at `progress` (0..1): one shape first, then mostly two."""
    return 0.3 if progress < 0.05 else 0.7


def dense_weight(progress: float) -> float:
    """The weight of the dense auxiliary loss: falls from 1 to nothing at two fifths."""
    return max(0.0, 1 - progress / 0.4)


def rate(progress: float) -> float:
    """One cycle: linear warm-up to the peak, then a cosine down to nothing."""
    if progress < WARM_UP:
        return PEAK_RATE * max(progress / WARM_UP, 0.02)
    return PEAK_RATE * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def pretrain(directory: Path, steps: int = 6000, size: int = 32, seed: int = 20) -> Joint:
    """Trains for `steps` batches of `size` scenes; writes a state and a log into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = Joint(configuration(), tokenizer())
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        fused=True,
    )
    first = 0
    if (directory / STATE).exists():
        state = torch.load(directory / STATE, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    sums: dict[str, float] = {}
    since = time.perf_counter()
    for step in range(first, steps):
        progress = step / steps
        made = batch(size, f"{seed}:{step}", two_shapes(progress))
        torch.manual_seed(seed * 1_000_003 + step)
        losses = model.losses(made, torch.rand(size) < 0.5, torch.rand(2 * size + size // 4) < 0.5)
        total = losses["lm"] + losses["itm"] + losses["itc"]
        if weight := dense_weight(progress):
            total = total + weight * losses["dense"]
        for group in optimizer.param_groups:
            group["lr"] = rate(progress)
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.item()
        if (step + 1) % 100 == 0:
            took = (time.perf_counter() - since) / 100
            parts = " ".join(f"{name} {value / 100:.3f}" for name, value in sums.items())
            note(directory, f"step {step + 1} {parts} {took:.2f} s/step")
            sums, since = {}, time.perf_counter()
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
            figures = check(model)
            note(directory, " ".join(f"{name} {value:.3f}" for name, value in figures.items()))
            keep = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
            }
            torch.save(keep, directory / (STATE + ".part"))
            (directory / (STATE + ".part")).replace(directory / STATE)
            since = time.perf_counter()
    return model


def check(model: Joint) -> dict[str, float]:
    """The figures of the model in training, on 200 scenes."""
    model.eval()
    figures = evaluate_model(
        over(model.captioner, model.matcher, model.tokenizer, normalise), 200, "check"
    )
    model.train()
    return figures


def note(directory: Path, line: str) -> None:
    """One line of the log, to the screen and to the file."""
    print(line, flush=True)
    with (directory / LOG).open("a") as log:
        log.write(line + "\n")


def main() -> None:
    """Trains, exports, evaluates what was exported; then removes the state of the training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to write")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=20)
    given = parser.parse_args()
    model = pretrain(given.output, given.steps, given.batch, given.seed)
    settings = {"steps": given.steps, "batch": given.batch, "seed": given.seed}
    export(model, given.output, (given.output / LOG).read_text(), settings)
    (given.output / STATE).unlink()
    (given.output / LOG).unlink()


if __name__ == "__main__":
    main()
