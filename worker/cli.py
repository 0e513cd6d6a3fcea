"""captionq-worker: run a worker, or use its parts by hand."""

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker import by_hand
from worker.bench.intake import bench_intake
from worker.bench.service import bench_service
from worker.calibrate_cli import calibrate
from worker.callbacks_cli import callbacks
from worker.check_image import check_image
from worker.check_url import check_url
from worker.clear_errors import checked_settings, clear_errors, fail
from worker.dead_cli import dead
from worker.evaluate_cli import evaluate
from worker.explain_cli import explain
from worker.finetune_cli import finetune
from worker.flags import AsJson
from worker.merge_cli import merge_pack
from worker.packs_cli import packs
from worker.take_over_cli import take_over
from worker.train_tokenizer_cli import train_tokenizer

cli = typer.Typer(
    name="captionq-worker",
    help="Caption images with BLIP: run a queue worker, or caption and match without a queue.\n\n"
    "Set CAPTIONQ_BROKER_URL to the broker, e.g. redis://host:6379/0; 'captionq-worker settings' "
    "prints every other setting. Producers are 'captionq'.",
    epilog="Start with: captionq-worker run. Operators: dead, callbacks, check-url, check-image; "
    "docs/operations.md says when.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
PASSED_ON: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
    "add_help_option": False,
}
"""For a command whose options are those of a module that runs by itself."""

benches = typer.Typer(help="Measure the parts of a worker.", no_args_is_help=True)
cli.add_typer(benches, name="bench")
cli.add_typer(dead, name="dead")
cli.add_typer(callbacks, name="callbacks")
cli.command()(by_hand.caption)
cli.command()(by_hand.match)
cli.command()(explain)
cli.command()(calibrate)
cli.command()(packs)
cli.command()(evaluate)
cli.command()(finetune)
cli.command("train-tokenizer")(train_tokenizer)
cli.command("take-over")(take_over)
cli.command()(check_image)
cli.command("merge-pack")(merge_pack)
cli.command("check-url", context_settings={"ignore_unknown_options": True})(check_url)
benches.command("intake")(bench_intake)
benches.command("service")(bench_service)


@cli.command()
def run(
    devices: Annotated[
        str | None,
        typer.Option(
            help="auto (every CUDA device, else the CPU), cpu, or indices: 0,1. "
            "Without it, CAPTIONQ_DEVICE decides."
        ),
    ] = None,
) -> None:
    """Run one worker process per device until SIGTERM, which finishes what runs.

    Settings are environment variables; 'captionq-worker settings' lists them.
    A process that dies is started again; one whose settings or checkpoint are wrong ends with
    status 78 and ends the others.

    Examples: captionq-worker run; captionq-worker run --devices 0,1
    """
    from worker.logs import dress, is_text
    from worker.supervisor import Supervisor, device_names, log, metrics_port, start_worker

    settings = checked_settings()
    log.addHandler(handler := logging.StreamHandler())
    log.setLevel(settings.log_level)
    dress([handler], settings.log_format, quiet=False)
    try:
        names = device_names(devices or settings.device, _cuda_devices)
    except ValueError as exc:
        raise fail(str(exc)) from None
    extra = ["--loglevel", settings.log_level]
    supervisor = Supervisor(
        names,
        start=lambda device: start_worker(
            device,
            extra,
            metrics_port(settings.metrics_port, names.index(device), len(names)),
            banner=is_text(settings.log_format),
        ),
    )
    raise typer.Exit(supervisor.run())


def _cuda_devices() -> int:
    import torch

    return torch.cuda.device_count()


@cli.command("settings")
def show_settings(as_json: AsJson = False) -> None:
    """Print every setting: its variable, its value, what it means and in which unit."""
    settings = checked_settings()
    rows = [
        {
            "variable": f"CAPTIONQ_{name.upper()}",
            "value": settings.shown(name),
            "meaning": field.description or "",
        }
        for name, field in type(settings).model_fields.items()
    ]
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table(title="captionq-worker settings")
    table.add_column("variable", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("meaning", overflow="fold")
    for row in rows:
        value = escape(row["value"]) or "[dim](empty)[/dim]"
        table.add_row(row["variable"], value, escape(row["meaning"]))
    Console().print(table)


@cli.command("fetch-model")
def fetch_model(
    model_id: Annotated[str, typer.Argument(help="Hub id, e.g. Salesforce/blip-itm-base-coco.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
) -> None:
    """Make a pinned copy of a hub checkpoint, to be served offline from a folder.

    Example: captionq-worker fetch-model Salesforce/blip-itm-base-coco -o models/match, and
    CAPTIONQ_MATCH_MODEL=models/match where workers run.
    """
    from worker.blip import fetch_model as fetch

    with clear_errors():
        print(fetch(model_id, output, revision))


@cli.command("cache-counts")
def cache_counts() -> None:
    """Print what the cache of results has done: hits, misses, and the device's time saved, as JSON.

    It is off unless CAPTIONQ_RESULT_CACHE_TTL_S says how long answers are kept.
    """
    import redis

    from producer.embedded import ensure
    from producer.errors import BrokerUnavailable
    from worker.result_cache import read_counts

    settings = checked_settings()
    try:
        url = settings.results_url_beside(settings.broker_url or ensure(settings.home))
        print(json.dumps(read_counts(url)))
    except (BrokerUnavailable, redis.RedisError, ValueError) as exc:
        raise fail(str(exc), 1) from None


@cli.command()
def demo(
    images: Annotated[
        list[str] | None, typer.Argument(help="Your own files or URLs; else drawn scenes.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the table as SVG as well.")] = None,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Then stay up, with a page to drop pictures on, until Ctrl-C."
        ),
    ] = False,
) -> None:
    """The main job, end to end, on this machine: broker, S3, HTTP and a worker are all real."""
    from worker import demo as demonstration

    raise typer.Exit(demonstration.main(images or [], svg, serve=serve))


@benches.command("engine", **PASSED_ON)
def bench_engine(context: typer.Context) -> None:
    """The engine against transformers' generate: images/s, stages, TFLOP/s, memory; --help.

    The options are those of python -m worker.blip.bench; docs/performance.md explains the figures.
    """
    from worker.blip import bench

    with clear_errors():
        raise typer.Exit(bench.main(context.args, prog="captionq-worker bench engine"))


@benches.command("match", **PASSED_ON)
def bench_match(context: typer.Context) -> None:
    """One image against 64 texts: match, its parts alone, and 64 calls of transformers; --help.

    The options are those of python -m worker.blip.bench.match.
    """
    from worker.blip.bench import match

    with clear_errors():
        raise typer.Exit(match.main(context.args, prog="captionq-worker bench match"))


@benches.command("languages", **PASSED_ON)
def bench_languages(context: typer.Context) -> None:
    """What it costs to mix languages in a batch, beside a batch in one; --help.

    The options are those of python -m worker.blip.bench.languages.
    """
    from worker.blip.bench import languages

    with clear_errors():
        raise typer.Exit(languages.main(context.args, prog="captionq-worker bench languages"))


@benches.command("explain", **PASSED_ON)
def bench_explain(context: typer.Context) -> None:
    """What an explained caption costs beside a plain greedy one; --help.

    The options are those of python -m worker.blip.bench.explain.
    """
    from worker.blip.bench import explain

    with clear_errors():
        raise typer.Exit(explain.main(context.args, prog="captionq-worker bench explain"))


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
