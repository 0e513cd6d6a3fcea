"""The training loop: AdamW over what is trained, a step at a time, each a function of its number.

Devices and processes are accelerate's affair. Every process knows the rows of every step, takes its
part of them, and gradients are averaged; on one device and on several a step learns from the same
rows, to within rounding.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from math import isfinite
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from worker.blip.memory import PeakMemory
from worker.training.finetune.display import Display
from worker.training.finetune.folder import RunFolder, Standing
from worker.training.finetune.losses import Losses
from worker.training.finetune.model import Trained
from worker.training.finetune.schedule import Stream, share_of_rate, step_seed
from worker.training.finetune.settings import Settings

VALIDATIONS = 10
BETAS = (0.9, 0.98)


class Interrupted(Exception):  # noqa: N818 - that is what happened
    """A signal came; the run is kept."""


class Diverged(ValueError):  # noqa: N818 - that is what happened
    """The loss is not a number any more."""


class Batches(Protocol):
    """Rows as what the module takes."""

    def __len__(self) -> int:
        """How many rows there are."""

    def batch(self, rows: Tensor, device: torch.device) -> dict[str, Any]:
        """What the module is given for these rows."""

    def weights(self, parts: Sequence[Tensor], processes: int) -> list[float]:
        """What the loss of each part of a step is multiplied with."""

    def figures(self, module: nn.Module, device: torch.device, size: int) -> dict[str, float]:
        """What the module is worth on all rows; `loss` is what is to fall."""


def train(
    accelerator: Any,
    module: nn.Module,
    trained: Trained,
    batches: Batches,
    validation: Batches | None,
    settings: Settings,
    folder: RunFolder,
    display: Display,
    interrupted: Callable[[], bool],
    save_every_s: float,
    memory: PeakMemory,
) -> Standing:
    """Train to the end, or go on to it from what the folder keeps; the model then has the best.

    Raises:
        Interrupted: `interrupted` said so; the folder keeps the run.
        Diverged: the loss is not finite.
    """
    if settings.batch < accelerator.num_processes:
        raise ValueError(
            f"--batch is over all processes: {settings.batch} rows are too few for "
            f"{accelerator.num_processes}"
        )
    module.to(accelerator.device)  # before the optimizer is made: its state goes where weights are
    parameters = trained.parameters()
    optimizer = torch.optim.AdamW(_groups(parameters, settings), betas=BETAS, fused=True)
    standing = Standing()
    kept = folder.load()
    if kept is not None:
        standing, tensors, state = kept
        _put(parameters, tensors)
        optimizer.load_state_dict(state)
    steps = settings.steps_of(len(batches))
    warmup = round(settings.warmup * steps)
    every = settings.validate_every or max(1, steps // VALIDATIONS)
    stream = Stream(len(batches), settings.batch * settings.accumulate, settings.seed)
    module, optimizer = accelerator.prepare(module, optimizer)
    bare = accelerator.unwrap_model(module)
    main, device = accelerator.is_main_process, accelerator.device
    losses = Losses(folder.path, standing.step) if main else None

    def save() -> None:
        standing.peak_bytes = max(standing.peak_bytes, memory.peak_bytes())
        if main:
            folder.save(standing, dict(parameters), optimizer.state_dict())

    def validated() -> None:
        bare.eval()
        found = validation.figures(bare, device, settings.batch) if validation is not None else {}
        bare.train()
        found = _of_first(found)
        if losses:
            losses.add(standing.step, **{f"validation_{n}": value for n, value in found.items()})
        display.say(
            f"step {standing.step:,}, validation: "
            + ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        )
        if standing.best is None or found["loss"] < standing.best:
            standing.best, standing.best_step, standing.stale = found["loss"], standing.step, 0
            standing.figures = found
            if main:
                folder.keep_best(standing.step, dict(parameters))
        else:
            standing.stale += 1

    bare.train()
    display.begin(standing.step, steps)
    since_s = saved_s = time.monotonic()
    try:
        while standing.step < steps and not _stale(standing, settings):
            step = standing.step
            rate = settings.rate * share_of_rate(step, steps, warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            rows = torch.from_numpy(stream.at(step)).view(settings.accumulate, settings.batch)
            loss = _step(accelerator, module, batches, rows, settings.seed, step)
            if not isfinite(loss):
                raise Diverged(
                    f"the loss is {loss} at step {step + 1}: try a lower --rate or a longer "
                    f"--warmup, and another output"
                )
            accelerator.clip_grad_norm_(parameters.values(), settings.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            standing.step = step + 1
            if losses:
                losses.add(standing.step, loss=loss, rate=rate)
            display.show(standing.step, loss, rate)
            if validation is not None and (standing.step % every == 0 or standing.step == steps):
                validated()
            now_s = time.monotonic()
            stop = _any(accelerator, interrupted())
            ended = standing.step == steps or _stale(standing, settings)
            if stop or ended or now_s >= saved_s + save_every_s:
                standing.seconds += now_s - since_s
                since_s = saved_s = now_s
                save()
                saved_s = time.monotonic()
            if stop and not ended:
                raise Interrupted
    finally:
        display.end()
        if losses:
            losses.close()
    if standing.best_step is not None:
        accelerator.wait_for_everyone()
        _put(parameters, folder.best(standing.best_step))
    return standing


def _step(
    accelerator: Any, module: nn.Module, batches: Batches, rows: Tensor, seed: int, step: int
) -> float:
    """Gradients of one step, rows [accumulate, batch]; the loss over all processes."""
    weights = batches.weights(list(rows), accelerator.num_processes)
    total = torch.zeros((), device=accelerator.device)
    for number, (part, weight) in enumerate(zip(rows, weights, strict=True)):
        own = part[accelerator.process_index :: accelerator.num_processes]
        torch.manual_seed(step_seed(seed, step, number, accelerator.process_index))
        last = number == len(rows) - 1
        with nullcontext() if last else accelerator.no_sync(module):
            loss = module(**batches.batch(own, accelerator.device)) * weight
            accelerator.backward(loss)
        total += loss.detach()
    return float(accelerator.reduce(total, "mean"))


def _groups(parameters: dict[str, nn.Parameter], settings: Settings) -> list[dict[str, Any]]:
    """Weight decay is for matrices: not for biases and LayerNorms."""
    matrices = [p for p in parameters.values() if p.ndim > 1]
    vectors = [p for p in parameters.values() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


@torch.no_grad()
def _put(parameters: dict[str, nn.Parameter], tensors: dict[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


def _stale(standing: Standing, settings: Settings) -> bool:
    return bool(settings.patience) and standing.stale >= settings.patience


def _of_first(figures: dict[str, float]) -> dict[str, float]:
    """The first process's figures: all decide by the same ones which state is best, and when to
    end, also where devices round differently."""
    from accelerate.utils import broadcast_object_list

    found: list[dict[str, float]] = broadcast_object_list([figures])
    return found[0]


def _any(accelerator: Any, flag: bool) -> bool:
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(int(flag), device=accelerator.device), "sum"))
