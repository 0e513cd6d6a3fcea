"""`captionq-worker dead`: what was given up, looked at, replayed and purged by hand."""

import re
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from producer.contract import JobFailed
from producer.embedded import ensure
from producer.errors import BrokerUnavailable, ErrorCode
from producer.publisher import Publisher
from producer.wire import WireJob
from worker.clear_errors import fail
from worker.deadletter import DeadLetter, DeadLetters, NotReplayable
from worker.flags import AsJson
from worker.settings import EX_CONFIG, SettingsError, WorkerSettings, load_settings

dead = typer.Typer(
    help="Look at jobs that were given up, replay them, or purge them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def moment(text: str) -> datetime:
    """A moment: an age before now (90s, 15m, 2h, 3d, 1w), or ISO 8601, in UTC unless it says.

    Raises:
        typer.BadParameter: for any other spelling.
    """
    if age := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text):
        return datetime.now(UTC) - timedelta(seconds=float(age[1]) * UNITS_S[age[2]])
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            "an age such as 2h or 3d, or a time such as 2026-05-01T12:00"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def known_code(text: str) -> str:
    """One of the error codes. Raises: typer.BadParameter."""
    if text not in set(ErrorCode):
        raise typer.BadParameter(f"no such code; they are {', '.join(sorted(ErrorCode))}")
    return text


Codes = Annotated[
    list[str] | None,
    typer.Option("--code", parser=known_code, help="Only this error code; may be given again."),
]
Since = Annotated[
    datetime | None, typer.Option(parser=moment, help="Only later ones: 2h, 3d, or a time.")
]
Until = Annotated[
    datetime | None, typer.Option(parser=moment, help="Only earlier ones: 2h, 3d, or a time.")
]
Limit = Annotated[int, typer.Option(min=1, help="Most letters to take, the latest first.")]
Names = Annotated[
    list[str] | None, typer.Argument(help="Job ids, or entries as 'dead list' prints them.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
All = Annotated[bool, typer.Option("--all", help="All letters, whatever their code and time.")]


@contextmanager
def opened() -> Iterator[tuple[DeadLetters, WorkerSettings, str]]:
    """The letters, the settings, and the broker's URL; errors as one sentence."""
    try:
        settings = load_settings()
        broker_url = settings.broker_url or ensure(settings.home)
        url = settings.results_url_beside(broker_url)
    except (SettingsError, BrokerUnavailable, ValueError) as exc:
        raise fail(str(exc), EX_CONFIG) from None
    letters = DeadLetters(url, queued_ttl_s=settings.queued_ttl_s, verifier=settings.verifier)
    try:
        with closing(letters):
            yield letters, settings, broker_url
    except BrokerUnavailable as exc:
        raise fail(str(exc), 1) from None


@dead.command("list")
def list_letters(
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List what was given up, the latest first.

    Examples: captionq-worker dead list --code job_poisoned --since 2d
    """
    with opened() as (letters, _, _):
        found = list(letters.find(code or (), since, until, limit))
    if as_json:
        for one in found:
            print(one.model_dump_json())
        return
    if not found:
        print("no dead letters")
        return
    table = Table()
    for name in ("at", "job", "code", "tries", "reason", "entry"):
        table.add_column(name, no_wrap=name in ("code", "entry"), overflow="fold")
    for one in found:
        tries = f"{one.attempts} ({len(one.deliveries)} deliveries)" if one.attempts else ""
        job = escape(one.job_id or f"(no job; queue {one.queue})")
        at = f"{one.at:%Y-%m-%d %H:%M:%S}"
        table.add_row(at, job, one.code, tries, escape(one.reason[:200]), one.entry)
    Console().print(table)
    if len(found) == limit:
        print(f"There may be more: the latest {limit} are shown (--limit).", file=sys.stderr)


@dead.command()
def show(
    name: Annotated[str, typer.Argument(help="A job id, or an entry.")], as_json: AsJson = False
) -> None:
    """Show one letter whole: the job, the reason, and every delivery.

    Also what nobody else is shown: the job's URLs with their queries, which may be signatures.

    Example: captionq-worker dead show JOB_ID
    """
    with opened() as (letters, _, _):
        one = _named(letters, name)
    if as_json:
        print(one.model_dump_json())
        return
    fields = one.model_dump(exclude={"deliveries"}, exclude_none=True)
    for field, value in fields.items():
        print(f"{field:>10}  {value}")
    for delivery in one.deliveries:
        print(
            f"{'delivered':>10}  {delivery.at:%Y-%m-%d %H:%M:%S} to {delivery.worker}, "
            f"attempt {delivery.attempt}"
        )


@dead.command()
def replay(
    names: Names = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    everything: All = False,
    limit: Limit = 10_000,
    yes: Yes = False,
) -> None:
    """Queue jobs again under the ids they had, as if they had never been tried.

    By name, or by --code, --since and --until; these ask first, unless --yes. A job that has
    ended well since, or is under way again, is left alone, and its letter removed. Letters whose
    job cannot run (none was read, or its time has run out) stay where they are.

    Examples: captionq-worker dead replay JOB_ID; captionq-worker dead replay --code http_5xx --yes
    """
    replayed = gone_on = kept = 0
    with opened() as (letters, settings, broker_url):
        chosen = _chosen(letters, names, code, since, until, everything, limit)
        _ask(f"Replay {len(chosen)} dead letters?", not names and not yes and bool(chosen))
        publisher = Publisher(
            broker_url,
            settings.submit_timeout_s,
            settings.sentinel_master,
            settings.rabbitmq_queues,
        )
        with closing(publisher):

            def send(job: WireJob) -> None:
                publisher.publish([job], monotonic() + settings.submit_timeout_s)

            for one in chosen:
                try:
                    sent = letters.replay(one, send)
                except (NotReplayable, JobFailed) as exc:
                    print(f"captionq-worker: {one.entry} not replayed: {exc}", file=sys.stderr)
                    kept += 1
                else:
                    replayed, gone_on = replayed + sent, gone_on + (not sent)
    print(f"{replayed} replayed" + (f", {gone_on} had gone on since" if gone_on else ""))
    if kept:
        raise typer.Exit(1)


@dead.command()
def purge(
    names: Names = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    everything: All = False,
    limit: Limit = 1_000_000,
    yes: Yes = False,
) -> None:
    """Remove letters for good; their jobs stay failed.

    By name, or by --code, --since and --until; these ask first, unless --yes.

    Examples: captionq-worker dead purge --until 7d --yes
    """
    with opened() as (letters, _, _):
        chosen = _chosen(letters, names, code, since, until, everything, limit)
        _ask(f"Remove {len(chosen)} dead letters?", not names and not yes and bool(chosen))
        removed = sum(
            letters.remove(*(one.entry for one in chosen[begin : begin + 500]))
            for begin in range(0, len(chosen), 500)
        )
    print(f"{removed} removed")


def _named(letters: DeadLetters, name: str) -> DeadLetter:
    one = letters.get(name)
    if one is None:
        raise fail(
            f"no dead letter of {name!r}: 'captionq-worker dead list' prints those there are"
        )
    return one


def _chosen(
    letters: DeadLetters,
    names: list[str] | None,
    code: list[str] | None,
    since: datetime | None,
    until: datetime | None,
    everything: bool,
    limit: int,
) -> list[DeadLetter]:
    if names:
        if code or since or until or everything:
            raise fail("give names, or --code, --since, --until or --all: not both")
        return list({one.entry: one for one in (_named(letters, name) for name in names)}.values())
    if not (code or since or until or everything):
        raise fail("which? Give job ids, or --code, --since, --until or --all")
    return list(letters.find(code or (), since, until, limit))


def _ask(question: str, needed: bool) -> None:
    if needed and not typer.confirm(question, err=True):
        raise typer.Exit(1)
