"""A fine-tuning run from its data to its output, or on from where it was left."""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from producer.manifest.parquet import NotInstalled
from worker.blip.checkpoint import Checkpoint
from worker.blip.hub import resolve
from worker.blip.pack_card import Base, PackCard
from worker.training.finetune.captioning import Captioning, CaptionRows
from worker.training.finetune.display import Display
from worker.training.finetune.embedded import Embedded, Encoder, Live, check, keep
from worker.training.finetune.folder import RunFolder, Standing
from worker.training.finetune.loop import Batches, peak_bytes, train
from worker.training.finetune.matching import Matching, MatchRows
from worker.training.finetune.model import Trained, load, recompute
from worker.training.finetune.on_disk import open_dataset, read_dataset
from worker.training.finetune.output import (
    TOKENIZER_FILES,
    write_checkpoint,
    write_output,
    write_pack,
)
from worker.training.finetune.pictures import Picture
from worker.training.finetune.rows import (
    Columns,
    Complaints,
    Row,
    Rows,
    facts,
    of_language,
    read_manifest,
    split,
)
from worker.training.finetune.settings import Settings
from worker.training.finetune.texts import captions, texts_to_match

UNKNOWN_WARNING, UNKNOWN_ERROR = 0.05, 0.9
"""Shares of tokens that the tokenizer has no word for."""

Waiting = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Where everything is. validation: a manifest, a dataset's folder, or a share of the data."""

    data: Path
    output: Path
    model: str
    name: str
    settings: Settings
    language: str | None = None
    validation: Path | float | None = None
    columns: Columns = field(default_factory=Columns)
    strict: bool = False
    save_every_s: float = 60.0
    cpu: bool = False


def finetune(
    request: Request,
    interrupted: Callable[[], bool] = lambda: False,
    waiting: Waiting = nullcontext,
) -> PackCard | None:
    """Train, and write the output; its card, or None in all processes but the first.

    interrupted: asked after each step; the run is then kept, and Interrupted raised. waiting: a
    block round what comes before the first step, and may be left at any moment.

    Raises:
        ValueError, OSError: the data, the settings or the output cannot be used.
        BlipError: the checkpoint or the tokenizer cannot be.
        Interrupted: go on with the same request.
    """
    with ExitStack() as held:
        return _finetune(request, interrupted, waiting, held)


def _finetune(
    request: Request, interrupted: Callable[[], bool], waiting: Waiting, held: ExitStack
) -> PackCard | None:
    settings, output = request.settings, request.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is there already: name another output, or remove it")
    checkpoint = Checkpoint(resolve(request.model), [settings.task])
    base = Base(checkpoint.model_id, checkpoint.revision, checkpoint.weights.digest_of(""))
    PackCard(name=request.name, task=settings.task, base=base, language=request.language)
    accelerator = _accelerator(request)
    display = Display(hidden=not accelerator.is_main_process)
    complaints = Complaints(display.say, request.strict)
    with waiting():
        read, other = _read(request, complaints)
        rows, held_rows = _divided(read, other, request)
    if read.others:
        there = ", ".join(f"{tag} ({count:,})" for tag, count in read.others.most_common(20))
        display.say(f"rows of other languages are left aside: {there}")
    run = _described(request, base, read.language, rows, held_rows)
    folder = RunFolder(output)
    if accelerator.is_main_process:
        held.callback(folder.end)
        folder.begin(run)
    accelerator.wait_for_everyone()

    encoder = Encoder(checkpoint, accelerator.device)
    pictures = list(dict.fromkeys(row.picture for row in [*rows, *held_rows]))
    with waiting():
        embedded, unreadable = _embedded(encoder, pictures, settings, complaints, display)
    del encoder
    rows, held_rows = (
        [row for row in some if row.picture not in unreadable] for some in (rows, held_rows)
    )
    if not rows:
        raise ValueError(f"{request.data} has no row to train on ({complaints.count} left out)")
    trained = load(checkpoint, settings)
    module, batches = _task(trained, settings, rows, embedded, display)
    validation = None
    if held_rows:
        validation = _task(trained, settings, held_rows, embedded, display)[1]
    if settings.gradient_checkpointing:
        recompute(trained.model)
    standing = train(
        accelerator, module, trained, batches, validation, settings, folder, display, interrupted,
        request.save_every_s,
    )  # fmt: skip

    standing.peak_bytes = max(standing.peak_bytes, peak_bytes(accelerator.device))
    card = PackCard(
        name=request.name,
        task=settings.task,
        base=base,
        language=read.language,
        data={
            "source": request.data.name,
            **facts(rows),
            "validation_rows": len(held_rows),
            "left_out": complaints.count,
        },
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


def _read(request: Request, complaints: Complaints) -> tuple[Rows, Rows | None]:
    """The rows of the data, and those of a validation set of its own."""
    rows, held = _rows(request.data, request.columns, complaints)
    read = of_language(rows, request.language)
    if isinstance(request.validation, Path):
        held, _ = _rows(request.validation, request.columns, complaints)
    if isinstance(request.validation, float) or held is None:
        return read, None
    return read, of_language(held, request.language or read.language)


def _rows(
    path: Path, columns: Columns, complaints: Complaints
) -> tuple[list[Row], list[Row] | None]:
    if not path.is_dir():
        return list(read_manifest(path, columns, complaints)), None
    parts = [
        None if part is None else list(read_dataset(part, path.name, path, columns, complaints))
        for part in open_dataset(path)
    ]
    return parts[0] or [], parts[1]


def _divided(read: Rows, held: Rows | None, request: Request) -> tuple[list[Row], list[Row]]:
    rows, held_rows = read.rows, held.rows if held is not None else []
    if isinstance(request.validation, float):
        rows, held_rows = split(rows, request.validation, request.settings.seed)
    if request.settings.task == "caption":
        rows, held_rows = ([row for row in some if row.match] for some in (rows, held_rows))
    if not rows:
        raise ValueError(f"{request.data} has no row to train on")
    if request.validation is not None and not held_rows:
        raise ValueError("the validation set is empty: name a larger share, or another file")
    if request.settings.patience and not held_rows:
        raise ValueError("--patience needs --validation")
    return rows, held_rows


def _embedded(
    encoder: Encoder,
    pictures: Sequence[Picture],
    settings: Settings,
    complaints: Complaints,
    display: Display,
) -> tuple[Embedded, set[Picture]]:
    """The images after the ViT, and those that cannot be read."""
    unreadable: set[Picture] = set()

    def bad(picture: Picture, reason: str) -> None:
        complaints.add(picture.name, reason)
        unreadable.add(picture)

    if encoder.bytes(len(pictures)) <= settings.cache_gib * 2**30:
        return keep(
            encoder, pictures, bad, lambda p: display.images("encoding images", p)
        ), unreadable
    display.say(
        f"{len(pictures):,} encoded images take {encoder.bytes(len(pictures)) / 2**30:.1f} GiB, "
        f"more than --cache-gib: each is encoded whenever it is needed"
    )
    check(encoder, pictures, bad, lambda p: display.images("checking images", p))
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


def _described(
    request: Request, base: Base, language: str | None, rows: list[Row], held: list[Row]
) -> dict[str, Any]:
    """Everything that decides what is trained, as JSON."""
    settings = asdict(replace(request.settings, tokenizer=None))
    return {
        "base": base.digest,
        "tokenizer": _files_digest(request.settings.tokenizer),
        "language": language,
        "name": request.name,
        "data": Rows(rows, language).digest(),
        "validation": Rows(held, language).digest(),
        **{f"--{name.replace('_', '-')}": value for name, value in settings.items()},
    }


def _files_digest(folder: Path | None) -> str | None:
    if folder is None:
        return None
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            digest.update(name.encode() + (folder / name).read_bytes())
    return digest.hexdigest()


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
