"""`captionq-worker callbacks`: who was told of which results, looked at and tried again by hand."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from producer.contract import public_uri
from producer.embedded import ensure
from producer.errors import BrokerUnavailable
from worker.callbacks.outbox import Outbox, Told
from worker.callbacks.schedule import Fate
from worker.callbacks.service import outbox_of
from worker.clear_errors import checked_settings, fail
from worker.flags import AsJson
from worker.settings import EX_CONFIG

callbacks = typer.Typer(
    help="Look at callbacks: who was told of which results, and what came of each try.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Name = Annotated[
    str, typer.Argument(metavar="ID", help="A webhook-id, or the id of a job or a batch.")
]


@contextmanager
def opened() -> Iterator[Outbox]:
    """The callbacks; errors as one sentence."""
    settings = checked_settings()
    try:
        broker_url = settings.broker_url or ensure(settings.home)
        outbox = outbox_of(settings, settings.results_url_beside(broker_url))
    except (BrokerUnavailable, ValueError) as exc:
        raise fail(str(exc), EX_CONFIG) from None
    try:
        with closing(outbox):
            yield outbox
    except BrokerUnavailable as exc:
        raise fail(str(exc), 1) from None


@callbacks.command("list")
def list_callbacks(
    state: Annotated[Fate | None, typer.Option(help="Only those.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Most callbacks looked at, and most such URLs.")
    ] = 50,
    as_json: AsJson = False,
) -> None:
    """List callbacks, those first to which something happened last, and URLs that refuse them.

    Examples: captionq-worker callbacks list --state dead
    """
    with opened() as outbox:
        found = [one for one in outbox.log(limit) if state in (None, one.state)]
        disabled = outbox.disabled(limit)
    if as_json:
        for one in found:
            print(json.dumps(_shown(one)))
        return
    table = Table()
    for name in ("job or batch", "state", "tries", "last", "next", "to", "webhook-id"):
        table.add_column(name, no_wrap=name == "state", overflow="fold")
    for one in found:
        last = one.tries[-1] if one.tries else None
        table.add_row(
            escape(one.job_id or one.batch_id or ""),
            one.state.value,
            str(one.tried),
            str((last.status or last.code) if last else ""),
            f"{one.due_at:%m-%d %H:%M:%S}" if one.due_at and one.state is Fate.DUE else "",
            escape(public_uri(one.url)),
            one.webhook_id,
        )
    Console().print(table if found else "no callbacks")
    for url, since in disabled.items():
        print(
            f"nothing is sent to {url} since {since:%Y-%m-%d %H:%M} (it answered 410): "
            f"captionq-worker callbacks enable '{url}'",
            file=sys.stderr,
        )


@callbacks.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show one callback whole: where it goes, and its last 20 tries.

    Example: captionq-worker callbacks show JOB_ID
    """
    with opened() as outbox:
        one = _named(outbox, name)
    shown = _shown(one)
    if as_json:
        print(json.dumps(shown))
        return
    for field, value in shown.items():
        if field not in ("tries", "body") and value is not None:
            print(f"{field:>10}  {value}")
    for each in one.tries:
        said = each.status or each.code
        again = f", next {each.next_at:%Y-%m-%d %H:%M:%S}" if each.next_at else ""
        print(f"{'try':>10}  {each.at:%Y-%m-%d %H:%M:%S}  {said} in {each.ms} ms{again}")


@callbacks.command()
def enable(url: Annotated[str, typer.Argument(help="As 'callbacks list' prints it.")]) -> None:
    """Send callbacks to a URL again that had answered 410 Gone.

    Those that were dropped meanwhile are not sent by this: 'callbacks replay' does that.

    Example: captionq-worker callbacks enable https://app.example.com/hooks
    """
    with opened() as outbox:
        if not outbox.enable(url):
            raise fail(f"nothing kept callbacks from {public_uri(url)}")
    print("enabled")


@callbacks.command()
def replay(name: Name) -> None:
    """Try a callback again from the beginning, at once, under the webhook-id that it had.

    Example: captionq-worker callbacks replay JOB_ID
    """
    with opened() as outbox:
        one = _named(outbox, name)
        outbox.replay(one.webhook_id)
    print(f"{one.webhook_id} is due")


def _named(outbox: Outbox, name: str) -> Told:
    if (one := outbox.find(name)) is None:
        raise fail(f"no callback of {name!r}: 'captionq-worker callbacks list' prints those kept")
    return one


def _shown(one: Told) -> dict[str, object]:
    """One for people: the query of a URL may be a password."""
    return {**one.model_dump(mode="json", exclude={"body"}), "url": public_uri(one.url)}
