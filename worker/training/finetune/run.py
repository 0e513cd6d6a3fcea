"""A fine-tuning run from its data to its output, or on from where it was left."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from producer.manifest.parquet import NotInstalled
from worker.blip.checkpoint import Checkpoint
from worker.blip.hub import resolve
from worker.blip.memory import PeakMemory
from worker.blip.pack_card import Base, PackCard
from worker.training.finetune.captioning import Captioning, CaptionRows
from worker.training.finetune.data import read_data
from worker.training.finetune.display import Display
from worker.training.finetune.embedded import Embedded, Encoder, Live, check, keep
from worker.training.finetune.folder import RunFolder, Standing
from worker.training.finetune.loop import Batches, Interrupted, train
from worker.training.finetune.matching import Matching, MatchRows
from worker.training.finetune.memory import give_back_freed_blocks
from worker.training.finetune.model import Trained, load, recompute
from worker.training.finetune.output import write_checkpoint, write_output, write_pack
from worker.training.finetune.pictures import Picture
from worker.training.finetune.request import Request
from worker.training.finetune.rows import Complaints, Row
from worker.training.finetune.settings import Settings
from worker.training.finetune.texts import captions, texts_to_match

UNKNOWN_WARNING, UNKNOWN_ERROR = 0.05, 0.9
"""Shares of tokens that the tokenizer has no word for."""


def finetune(request: Request, interrupted: Callable[[], bool] = lambda: False) -> PackCard | None:
    """Train, and write the output; its card, or None in all processes but the first.

    interrupted: asked after each step; the run is then kept, and Interrupted raised.

    Raises:
        ValueError, OSError: the data, the settings or the output cannot be used.
        BlipError: the checkpoint or the tokenizer cannot be.
        Interrupted: go on with the same request.
    """
    folder = RunFolder(request.output)
    try:
        return _finetune(request, interrupted, folder)
    finally:
        folder.end()


def _finetune(
    request: Request, interrupted: Callable[[], bool], folder: RunFolder
) -> PackCard | None:
    settings, output = request.settings, request.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is there already: name another output, or remove it")
    give_back_freed_blocks()
    checkpoint = Checkpoint(resolve(request.model), [settings.task])
    base = Base(checkpoint.model_id, checkpoint.revision, checkpoint.weights.digest_of(""))
    PackCard(name=request.name, task=settings.task, base=base, language=request.language)
    accelerator = _accelerator(request)
    memory = PeakMemory(accelerator.device)
    display = Display(hidden=not accelerator.is_main_process)
    complaints = Complaints(display.say, request.strict)
    data = read_data(
        request.data, request.validation, request.language, request.columns, settings, complaints
    )
    if data.others:
        display.say(f"{data.others:,} rows of other languages are left aside")
    if accelerator.is_main_process:
        folder.begin(request.identity(base, data))
    accelerator.wait_for_everyone()

    encoder = Encoder(checkpoint, accelerator.device)
    embedded, unreadable = _embedded(
        encoder, data.pictures, settings, complaints, display, interrupted
    )
    del encoder
    data = data.without(unreadable)
    if not data.rows:
        raise ValueError(f"no image of {request.data} can be read")
    trained = load(checkpoint, settings)
    module, batches = _task(trained, settings, data.rows, embedded, display)
    validation = None
    if data.held:
        validation = _task(trained, settings, data.held, embedded, display)[1]
    if settings.gradient_checkpointing:
        recompute(trained.model)
    standing = train(
        accelerator, module, trained, batches, validation, settings, folder, display, interrupted,
        request.save_every_s, memory,
    )  # fmt: skip

    standing.peak_bytes = max(standing.peak_bytes, memory.peak_bytes())
    card = PackCard(
        name=request.name,
        task=settings.task,
        base=base,
        language=data.language,
        data={"source": request.data.name, **data.facts(), "left_out": complaints.count},
        training=_training(settings, standing, trained, accelerator),
    )
    first = accelerator.is_main_process
    accelerator.wait_for_everyone()  # all have read the best state, which is cleared away
    if first:
        trained.model.cpu()
        _write(output, checkpoint, trained, card, settings)
        folder.clear()
    accelerator.end_training()
    return card if first else None


def _accelerator(request: Request) -> Any:
    try:
        from accelerate import Accelerator
    except ModuleNotFoundError as exc:
        raise NotInstalled(
            "Fine-tuning needs accelerate: pip install 'captionq[finetune]'"
        ) from exc
    return Accelerator(cpu=request.cpu, mixed_precision="bf16" if request.settings.bf16 else "no")


def _embedded(
    encoder: Encoder,
    pictures: Sequence[Picture],
    settings: Settings,
    complaints: Complaints,
    display: Display,
    interrupted: Callable[[], bool],
) -> tuple[Embedded, set[Picture]]:
    """The images after the ViT, and those that cannot be read."""
    unreadable: set[Picture] = set()

    def bad(picture: Picture, reason: str) -> None:
        complaints.add(picture.name, reason)
        unreadable.add(picture)

    def watched(some: Iterable[Picture]) -> Iterator[Picture]:
        for picture in display.images("looking at images", some):
            if interrupted():
                raise Interrupted
            yield picture

    if encoder.bytes(len(pictures)) <= settings.cache_gib * 2**30:
        return keep(encoder, pictures, bad, watched), unreadable
    display.say(
        f"{len(pictures):,} encoded images take {encoder.bytes(len(pictures)) / 2**30:.1f} GiB, "
        f"more than --cache-gib: each is encoded whenever it is needed"
    )
    check(encoder, pictures, bad, watched)
    return Live(encoder), unreadable


def _task(
    trained: Trained,
    settings: Settings,
    rows: Sequence[Row],
    embedded: Embedded,
    display: Display,
) -> tuple[Any, Batches]:
    """The module that learns, and rows as its batches."""
    tokenizer = trained.tokenizer
    most = min(settings.max_tokens, trained.model.config.text_config.max_position_embeddings)
    make = captions if settings.task == "caption" else texts_to_match
    tokens = make(tokenizer, [row.caption for row in rows], most)
    if tokens.unknown >= UNKNOWN_ERROR:
        raise ValueError(
            f"{tokens.unknown:.0%} of the captions' tokens are unknown to the tokenizer: give one "
            f"for this language with --tokenizer (captionq-worker train-tokenizer makes one)"
        )
    if tokens.unknown >= UNKNOWN_WARNING:
        display.say(f"{tokens.unknown:.0%} of the captions' tokens are unknown to the tokenizer")
    if tokens.cut:
        display.say(f"{tokens.cut:,} captions have more than --max-tokens {most}, and are cut")
    if settings.task == "caption":
        return Captioning(trained.model), CaptionRows(rows, tokens, embedded)
    first = tokenizer.cls_id if tokenizer.enc_id is None else tokenizer.enc_id
    return Matching(trained.model, first), MatchRows(rows, tokens, embedded)


def _training(
    settings: Settings, standing: Standing, trained: Trained, accelerator: Any
) -> dict[str, Any]:
    """What the card says of the training."""
    given = {
        name: value
        for name, value in asdict(settings).items()
        if name not in ("task", "tokenizer", "full", "epochs", "steps") and value is not None
    }
    if settings.full:
        for name in ("targets", "rank", "alpha", "dropout"):
            given.pop(name, None)
    else:
        given["targets"] = settings.pattern
    return {
        "steps": standing.step,
        **({"best_step": standing.best_step} if standing.best_step else {}),
        "trained_parameters": sum(p.numel() for p in trained.parameters().values()),
        **given,
        "processes": accelerator.num_processes,
        "device": accelerator.device.type,
        "seconds": round(standing.seconds, 1),
        "peak_memory_mib": standing.peak_bytes >> 20,
        **{f"validation_{name}": value for name, value in standing.figures.items()},
        "finished": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _write(
    output: Path, checkpoint: Checkpoint, trained: Trained, card: PackCard, settings: Settings
) -> None:
    def fill(folder: Path) -> None:
        if trained.adapted is None:
            write_checkpoint(folder, checkpoint, trained, card, settings.tokenizer)
        else:
            write_pack(folder, trained, card, settings.tokenizer)

    write_output(output, fill)
