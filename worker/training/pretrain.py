"""Trains the bundled BLIP on scenes: joint ITC, ITM and LM losses (Li et al. 2022).

    python -m worker.training.pretrain -o DIRECTORY [--steps N] [--batch N] [--seed N]

Writes DIRECTORY as a model folder. Continues from DIRECTORY/training.pt where there is one: every
batch depends on the seed and the step alone, so an interrupted run goes on as if it had not been.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from worker.training.dataset import batch, normalise
from worker.training.evaluate import evaluate_model
from worker.training.evaluated import over
from worker.training.export import export
from worker.training.joint import Joint, configuration
from worker.training.vocabulary import tokenizer

STATE, LOG = "training.pt", "training.log"
CHECK_EVERY = 500
STEPS = 6300
# What changes on the way, as (step of a run of STEPS, value); straight lines between.
RATE = (
    *((0, 2e-5), (300, 1.2e-3), (2500, 1.2e-3), (3000, 1.09e-3), (3500, 7.9e-4)),
    *((4000, 4.1e-4), (4500, 1.1e-4), (5000, 0.0), (5000, 6e-4), (5600, 5e-4), (6300, 0.0)),
)
DENSE_WEIGHT = ((0, 1.0), (1000, 0.5), (1000, 1.0), (3000, 1.0), (4250, 0.0), (5000, 0.0))
TWO_SHAPES = ((0, 0.3), (250, 0.3), (250, 0.7))
VIT_ALONE = ((1000, 3000), (5000, 5600))  # only the ViT learns, from the dense loss
POLISH = 5000  # from here on: unnamed colours in a dense loss of their own, slips in the captions
SLIPS = 0.3


def at(step: float, line: tuple[tuple[int, float], ...]) -> float:
    """The value of `line` at `step`."""
    steps, values = zip(*line, strict=True)
    return float(np.interp(step, steps, values))


def losses(model: Joint, step: float, size: int, seed: str) -> dict[str, torch.Tensor]:
    """The weighted losses at `step` of a run of STEPS, from scenes that `seed` alone decides."""
    made = batch(size, seed, at(step, TWO_SHAPES))
    dense = {}
    if step >= POLISH:
        odd = batch(size // 2, f"{seed}:odd", at(step, TWO_SHAPES), recoloured=True)
        dense["odd"] = model.dense_loss(model.see(odd.pixels)[:, 1:], odd)
    if any(first <= step < last for first, last in VIT_ALONE):
        return dense | {"dense": model.dense_loss(model.see(made.pixels)[:, 1:], made)}
    prompted, cls_first = torch.rand(size) < 0.5, torch.rand(2 * size + size // 4) < 0.5
    joint = model.losses(made, prompted, cls_first, SLIPS if step >= POLISH else 0.0)
    return dense | joint | {"dense": joint["dense"] * at(step, DENSE_WEIGHT)}


def pretrain(directory: Path, steps: int = STEPS, size: int = 32, seed: int = 20) -> Joint:
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
        scaled = step * STEPS / steps
        torch.manual_seed(seed * 1_000_003 + step)
        parts = losses(model, scaled, size, f"{seed}:{step}")
        for group in optimizer.param_groups:
            group["lr"] = at(scaled, RATE)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for name, loss in parts.items():
            sums[name] = sums.get(name, 0.0) + loss.item()
        if (step + 1) % 100 == 0:
            took = (time.perf_counter() - since) / 100
            means = " ".join(f"{name} {value / 100:.3f}" for name, value in sums.items())
            note(directory, f"step {step + 1} {means} {took:.2f} s/step")
            sums, since = {}, time.perf_counter()
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
            if "lm" in parts:
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
    parser.add_argument("--steps", type=int, default=STEPS)
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
