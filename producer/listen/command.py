"""`captionq listen`: uploads caption themselves, as a queue or a folder tells of them."""

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.contract import CaptionOptions
from producer.event_rules import Rule, Rules
from producer.exits import EXIT_CODES, exit_codes, read_settings
from producer.flags import Adapter, CaptionFlags, InLane, Language, ModelId
from producer.groups import with_groups
from producer.listen.session import of_folder, of_queue
from producer.listen.sqs_queue import LONG_POLL_S, SCHEME
from producer.settings import ProducerSettings

LISTEN_EXAMPLES = (
    "Examples:\n\n"
    "captionq listen sqs://uploads\n\n"
    "captionq listen sqs://uploads --prefix incoming/ --suffix .jpg --style alt_text\n\n"
    "captionq listen https://sqs.eu-west-1.amazonaws.com/123456789012/uploads --once\n\n"
    "captionq listen sqs://uploads --rules uploads.toml --json\n\n"
    "captionq listen ./incoming\n\n"
    "captionq listen /srv/photos --new-only --language de\n\n"
    "docs/uploads.md has the set-up of S3, SNS, EventBridge, MinIO and Ceph.\n\n" + EXIT_CODES
)


@with_groups
def listen(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="sqs://QUEUE, a queue's URL, or a folder here. A queue holds events of S3, from "
            "S3 itself, SNS or EventBridge; of a folder, files are taken once they are complete.",
        ),
    ],
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML of which objects have which jobs, in place of the options that follow; by "
            "default CAPTIONQ_EVENTS_RULES.",
        ),
    ] = None,
    prefix: Annotated[str, typer.Option(help="Only keys that begin so.")] = "",
    suffix: Annotated[
        list[str] | None,
        typer.Option(help="Only keys that end so, in small or capital letters; may be repeated."),
    ] = None,
    min_bytes: Annotated[int, typer.Option(min=0, help="Only objects of this size or more.")] = 1,
    max_bytes: Annotated[
        int | None, typer.Option(min=1, help="Only objects of this size or less.")
    ] = None,
    captions: CaptionFlags,
    model: ModelId = None,
    language: Language = None,
    adapter: Adapter = None,
    lane: Annotated[InLane, typer.Option(help="bulk gives way to interactive jobs.")] = InLane.BULK,
    callback: Annotated[
        str | None, typer.Option(metavar="URL", help="Told of each job's end; docs/callbacks.md.")
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="End when the queue is empty, or the files there taken.")
    ] = False,
    pollers: Annotated[
        int, typer.Option(min=1, max=64, help="Of a queue: batches of ten under way at a time.")
    ] = 4,
    visibility_s: Annotated[
        int,
        typer.Option(
            "--visibility",
            min=2,
            max=43_200,
            metavar="SECONDS",
            help="How long a message is kept from other listeners; held on to as long as needed.",
        ),
    ] = 60,
    long_poll_s: Annotated[
        int,
        typer.Option(
            "--long-poll",
            min=1,
            max=LONG_POLL_S,
            metavar="SECONDS",
            help="Of a queue: how long one call waits for messages; SIGTERM waits for it too.",
        ),
    ] = LONG_POLL_S,
    dead_after: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="RECEIVES",
            help="A message that cannot be read becomes a dead letter here (captionq-worker dead) "
            "when it has been received so often; by default it is left to the queue's redrive "
            "policy.",
        ),
    ] = None,
    new_only: Annotated[
        bool, typer.Option("--new-only", help="Of a folder: not the files that are there already.")
    ] = False,
    settle_s: Annotated[
        float,
        typer.Option(
            "--settle",
            min=0,
            metavar="SECONDS",
            help="Of a folder: how long a file has to have stayed as it is to be complete.",
        ),
    ] = 1.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="At the end, print what was done as JSON.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what went wrong.")] = False,
) -> None:
    """Submit a job for each image that comes, until SIGTERM or Ctrl-C.

    An event that comes again makes no second job; an older one of a key that has been overwritten
    since makes none. A message is deleted when the broker has its jobs, and held while it is away.
    CAPTIONQ_EVENTS_ALLOW names the buckets and prefixes that are listened to.
    """
    with exit_codes():
        settings = read_settings()
        seen = {"model": model, "language": language, "adapter": adapter}
        job: dict[str, Any] = {name: one for name, one in seen.items() if one is not None}
        if captions.options != CaptionOptions():
            job["options"] = captions.options.model_dump(mode="json")
        if captions.filter is not None:
            job["filter"] = captions.filter.model_dump(mode="json")
        if lane is not InLane.BULK:
            job["lane"] = lane.value
        if callback is not None:
            job["callback"] = {"url": callback}
        rule = Rule(
            prefix=prefix, suffixes=suffix, min_bytes=min_bytes, max_bytes=max_bytes, job=job
        )
        chosen = _rules(settings, rules, rule)
        is_queue = source.startswith((SCHEME, "https://", "http://"))
        folder = Path(source).expanduser()
        if not is_queue and not folder.is_dir():
            raise ValueError(
                f"{source!r} is neither sqs://QUEUE, a queue's URL, nor a folder here."
            )
        logging.basicConfig(
            format="%(asctime)s %(levelname)s %(message)s",
            level=logging.WARNING,
            stream=sys.stderr,
        )
        logging.getLogger("producer").setLevel(logging.WARNING if quiet else logging.INFO)
        if is_queue:
            done = asyncio.run(
                of_queue(
                    settings,
                    chosen,
                    source,
                    pollers=pollers,
                    visibility_s=visibility_s,
                    long_poll_s=long_poll_s,
                    dead_after=dead_after,
                    once=once,
                )
            )
        else:
            done = asyncio.run(
                of_folder(settings, chosen, folder, settle_s=settle_s, new_only=new_only, once=once)
            )
        if as_json:
            typer.echo(json.dumps(done))


def _rules(settings: ProducerSettings, file: Path | None, rule: Rule) -> Rules:
    """The rules of a file, or the one that the options make, or those of the settings.

    Raises:
        ValueError: both a file and options are given, or the file cannot be used.
    """
    if rule.model_dump() == Rule().model_dump():
        named = settings.model_copy(update={"events_rules": file or settings.events_rules})
        return Rules.of_settings(named)
    if file is not None:
        raise ValueError(
            "--rules says which jobs there are; leave out the options that say it too."
        )
    return Rules.of([rule], Rules.of_settings(settings).allow)
