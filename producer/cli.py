"""`captionq`: submit images, follow their jobs, from the command line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from typing import Annotated, Any

import typer

from producer import contract, keys_command
from producer.agents.command import MCP_EXAMPLES, serve_tools
from producer.client import Client
from producer.contract import CaptionJob, EmbedJob, Job, JobResult, JobState, MatchJob, RankJob
from producer.errors import BrokerUnavailable, UnknownJob
from producer.exits import EXIT_CODES, JOB_FAILED, exit_codes, read_settings
from producer.explain_command import EXPLAIN_EXAMPLES, explain
from producer.flags import (
    Adapter,
    AsJson,
    CaptionFlags,
    InLane,
    JobId,
    Language,
    Mode,
    ModelId,
    Resolution,
    Task,
    TimeoutS,
    View,
)
from producer.flower_command import FLOWER_EXAMPLES, flower
from producer.framing import box_of
from producer.groups import with_groups
from producer.index import commands as index_commands
from producer.index import search_command
from producer.listen.command import LISTEN_EXAMPLES, listen
from producer.manifest.caption_command import EXAMPLES, caption
from producer.manifest.embed_command import EMBED_EXAMPLES, embed
from producer.manifest.match_command import MATCH_EXAMPLES
from producer.manifest.match_command import match as match_images
from producer.rank_command import RANK_EXAMPLES, rank
from producer.serve_command import SERVE_EXAMPLES, serve
from producer.signing import new_key
from producer.store import Record
from producer.tail_command import EXAMPLES as TAIL_EXAMPLES
from producer.tail_command import tail
from producer.terminal import show, standing, with_progress
from producer.upload import uris
from producer.validation.command import VALIDATE_EXAMPLES, validate
from producer.words import outcome

app = typer.Typer(
    name="captionq",
    help="Caption images, and match them with texts, through a queue of workers.\n\n"
    "Set CAPTIONQ_BROKER_URL to the broker, e.g. redis://host:6379/0; without it, the embedded "
    "Redis server of ~/.captionq is started or joined. A worker (captionq-worker run) has to "
    "serve the same broker.\n\n" + EXIT_CODES,
    epilog="Start with: captionq submit cat.jpg --wait",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _captionq(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        try:
            typer.echo(f"captionq {metadata.version('captionq')}")
        except metadata.PackageNotFoundError:
            typer.echo("captionq, run from its source tree without being installed")
        raise typer.Exit


@app.command(
    epilog="Examples:\n\n"
    "captionq submit cat.jpg https://example.com/dog.jpg --wait\n\n"
    "captionq submit s3://photos/cat.jpg --beams 5 --prompt 'a picture of'\n\n"
    "captionq submit street.jpg --region 0,0,640,480 --region 640,0,1280,480 --wait\n\n"
    "captionq submit cat.jpg --sample --seed 7 -n 5 --wait --json\n\n"
    "captionq submit cat.jpg --sample -n 5 --weigh --refuse 'stock photo' --wait\n\n"
    "captionq submit cat.jpg --language de --style alt_text --wait\n\n"
    "captionq submit photos/*.jpg --lane bulk\n\n"
    "captionq submit cat.jpg --task match --text 'a cat' --text 'a dog' --wait --json\n\n"
    "captionq submit cat.jpg --task rank --text 'a cat' --text 'a dog' -k 1 --wait\n\n"
    "captionq submit cat.jpg --task embed --wait --json\n\n" + EXIT_CODES
)
@with_groups
def submit(
    *,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="URIs (https, http, s3, file) or files here. A file is copied to "
            "CAPTIONQ_UPLOAD_URL when that is set; otherwise the worker reads it by its path.",
        ),
    ],
    task: Annotated[
        Task,
        typer.Option(
            help="caption: say what it shows; match: weigh texts; rank: find the best of many "
            "texts; embed: place it among others."
        ),
    ] = Task.CAPTION,
    text: Annotated[
        list[str] | None,
        typer.Option(help="A text to match or rank for the images; may be repeated."),
    ] = None,
    k: Annotated[
        int,
        typer.Option("-k", min=1, max=256, help="With --task rank: texts that are weighed by ITM."),
    ] = 32,
    captions: CaptionFlags,
    mode: Mode = View.STRETCH,
    resolution: Resolution = None,
    region: Annotated[
        list[str] | None,
        typer.Option(metavar="L,T,R,B", help="Caption this part alone; may be repeated."),
    ] = None,
    model: ModelId = None,
    language: Language = None,
    adapter: Adapter = None,
    lane: Annotated[
        InLane, typer.Option(help="bulk gives way to interactive jobs.")
    ] = InLane.INTERACTIVE,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the results.")] = False,
    timeout_s: TimeoutS = 300,
    as_json: AsJson = False,
) -> None:
    """Submit images, one job each, and print the jobs' ids, or with --wait their results."""
    with exit_codes():
        settings = read_settings()
        if (task in (Task.MATCH, Task.RANK)) != bool(text):
            raise ValueError("--task match or --task rank, and --text TEXT, go together.")
        if task is not Task.CAPTION and region:
            raise ValueError("--region is for captions.")
        boxes = tuple(box_of(given) for given in region) if region else None
        seen: dict[str, Any] = {
            "model": model,
            "language": language,
            "adapter": adapter,
            "lane": lane.value,
            "mode": mode.value,
            "resolution": resolution,
        }
        if task is not Task.CAPTION and captions.weigh:
            raise ValueError("--weigh is for captions.")
        how: dict[str, Any] = {"options": captions.options, "filter": captions.filter}

        def job(uri: str) -> Job:
            match task:
                case Task.CAPTION:
                    return CaptionJob(image=uri, regions=boxes, **how, **seen)
                case Task.MATCH:
                    return MatchJob(image=uri, texts=tuple(text or ()), **seen)
                case Task.RANK:
                    return RankJob(image=uri, texts=tuple(text or ()), k=k, **seen)
                case Task.EMBED:
                    return EmbedJob(image=uri, **seen)

        jobs = [job(uri) for uri in uris(images, settings)]
        with Client(settings=settings) as client:
            handles = client.submit_many(jobs)
            names = {h.job_id: image for h, image in zip(handles, images, strict=True)}
            if not wait:
                for job_id, image in names.items():
                    show({"job_id": job_id, "image": image}, f"{job_id}  {image}", as_json)
                return
            failed = False
            results = with_progress(client.as_completed(handles, timeout_s), len(handles))
            with _naming_the_rest(names):
                for result in results:
                    show(result, f"{names.pop(result.job_id)}: {outcome(result)}", as_json)
                    failed = failed or result.state is not JobState.SUCCEEDED
        if failed:
            raise typer.Exit(JOB_FAILED)


caption_many = app.command("caption", epilog=EXAMPLES)(caption)
embed_many = app.command("embed", epilog=EMBED_EXAMPLES)(embed)
rank_many = app.command("rank", epilog=RANK_EXAMPLES)(rank)
validate_pairs = app.command("validate", epilog=VALIDATE_EXAMPLES)(validate)
match_many = app.command("match", epilog=MATCH_EXAMPLES)(match_images)
listen_for = app.command("listen", epilog=LISTEN_EXAMPLES)(listen)
explain_words = app.command("explain", epilog=EXPLAIN_EXAMPLES)(explain)
find = app.command("search", epilog=search_command.EXAMPLES)(search_command.search)
serve_http = app.command("serve", epilog=SERVE_EXAMPLES)(serve)
watch = app.command("flower", epilog=FLOWER_EXAMPLES)(flower)
offer_tools = app.command("mcp", epilog=MCP_EXAMPLES)(serve_tools)
app.add_typer(index_commands.app, name="index")
app.add_typer(keys_command.app, name="keys")
tail_results = app.command("tail", epilog=TAIL_EXAMPLES)(tail)


@app.command(epilog=EXIT_CODES)
def status(job_id: JobId, as_json: AsJson = False) -> None:
    """Print where a job stands."""
    with exit_codes(), Client(settings=read_settings()) as client:
        record = _known(client, job_id)
        show(record, standing(record), as_json)


@app.command(epilog=EXIT_CODES)
def result(
    job_id: JobId,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.")] = False,
    timeout_s: TimeoutS = 300,
    as_json: AsJson = False,
) -> None:
    """Print a job's result. Without --wait, a job that has not ended is a time-out (4)."""
    with exit_codes(), Client(settings=read_settings()) as client:
        found = client.result(job_id, timeout_s) if wait else _ended(client, job_id)
        show(found, outcome(found), as_json)
        if found.state is not JobState.SUCCEEDED:
            raise typer.Exit(JOB_FAILED)


@app.command(epilog=EXIT_CODES)
def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """End a job that is queued or running; one that has ended stays as it is."""
    with exit_codes(), Client(settings=read_settings()) as client:
        kept = client.cancel(job_id)
        show(kept, kept.state.value, as_json)


@app.command(
    "new-key",
    epilog="Example: export CAPTIONQ_SIGNING_KEYS=$(captionq new-key)\n\n"
    "docs/security.md says how keys are changed. openssl rand -base64 32 makes one as well, after "
    "an ID and a colon.",
)
def make_key(
    key_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="Letters, digits, _ and -; else the date.")
    ] = None,
) -> None:
    """Print a new secret key that jobs can be signed with, for CAPTIONQ_SIGNING_KEYS."""
    with exit_codes():
        typer.echo(new_key(f"{datetime.now(UTC):%Y%m%d}" if key_id is None else key_id))


@app.command()
def schema() -> None:
    """Print the JSON Schemas of jobs and results."""
    typer.echo(json.dumps(contract.schema(), indent=2))


def main() -> None:
    """Entry point."""
    app()


def _known(client: Client, job_id: str) -> Record:
    record = client.status(job_id)
    if record is None:
        raise UnknownJob(job_id)
    return record


def _ended(client: Client, job_id: str) -> JobResult:
    record = _known(client, job_id)
    if record.result is None:
        raise TimeoutError(f"The job has not ended: it is {record.state}.")
    return record.result


@contextmanager
def _naming_the_rest(names: dict[str, str]) -> Iterator[None]:
    """When the wait is cut short, say on stderr which jobs (ids to images) have not ended."""
    try:
        yield
    except (TimeoutError, BrokerUnavailable, KeyboardInterrupt):
        for job_id, image in names.items():
            typer.echo(f"not ended: {job_id}  {image}", err=True)
        raise


if __name__ == "__main__":
    main()
