"""`captionq keys`: the API keys of the HTTP gateway."""

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.callback import ID_PATTERN
from producer.exits import EXIT_CODES, exit_codes
from producer.flags import AsJson
from producer.gateway import keys
from producer.gateway.keys import DEFAULT_RATE, MAX_RATE, MIN_RATE, SCOPES, KeyEntry, Scope
from producer.terminal import show

app = typer.Typer(
    help="API keys of the HTTP gateway (captionq serve).\n\n"
    "They are kept in a file, by their hashes alone; a running gateway reads it again within "
    "seconds. Jobs belong to the NAME that they were submitted with: no other key sees them, but "
    "for one with the scope admin.\n\n" + EXIT_CODES,
    epilog="Start with: captionq keys new shop --scope submit --scope read",
    no_args_is_help=True,
)

KeysFile = Annotated[
    Path | None,
    typer.Option(
        "--keys", metavar="FILE", help="The file; otherwise CAPTIONQ_API_KEYS.", show_default=False
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, . _ and -.")]


@app.command(
    epilog="Examples:\n\n"
    "captionq keys new shop --scope submit --scope read --rate 100\n\n"
    "captionq keys new operator --scope admin --keys /etc/captionq/keys.json\n\n"
    "To change a key: make a second one of the same name, give it to the senders, and remove the "
    "first (captionq keys remove shop --only FINGERPRINT).\n\n" + EXIT_CODES
)
def new(
    name: Name,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="submit (and cancel), read, upload, hooks (of S3), admin (all of these, and every "
            "owner's jobs); may be repeated. By default submit, read and upload."
        ),
    ] = None,
    rate: Annotated[
        float,
        typer.Option(
            min=MIN_RATE,
            max=MAX_RATE,
            help="Requests a second, of each gateway; jobs of a batch count.",
        ),
    ] = DEFAULT_RATE,
    file: KeysFile = None,
) -> None:
    """Make a key, and print it: this once."""
    with exit_codes():
        path = _path(file)
        if not re.fullmatch(ID_PATTERN, name):
            raise ValueError(f"{name!r} is no name: letters, digits, . _ and -, 64 at most.")
        key, entry = keys.new_key(name, _scopes(scope), rate)
        with keys.changing(path):
            keys.write(path, [*_entries(path), entry])
        typer.echo(
            f"The key of {name}, kept in {path} by its hash; it is not shown again:", err=True
        )
        typer.echo(key)


@app.command("list", epilog="Example: captionq keys list --json\n\n" + EXIT_CODES)
def list_keys(file: KeysFile = None, as_json: AsJson = False) -> None:
    """Print which keys there are; what they are is kept nowhere."""
    with exit_codes():
        for entry in keys.read(_path(file)).entries:
            show(_shown(entry), _line(entry), as_json)


@app.command(
    epilog="Examples:\n\n"
    "captionq keys remove shop\n\n"
    "captionq keys remove shop --only 3fa9c1d2\n\n" + EXIT_CODES
)
def remove(
    name: Name,
    only: Annotated[
        str | None,
        typer.Option(metavar="FINGERPRINT", help="Of several keys of this name, this one alone."),
    ] = None,
    file: KeysFile = None,
) -> None:
    """Have a name's keys let nobody in any more."""
    with exit_codes():
        path = _path(file)
        with keys.changing(path):
            entries = keys.read(path).entries
            kept = [
                entry
                for entry in entries
                if entry.id != name or (only is not None and entry.fingerprint != only)
            ]
            if len(kept) == len(entries):
                which = f"{name} with the fingerprint {only}" if only else name
                raise ValueError(f"There is no key of {which} in {path}.")
            keys.write(path, kept)
        typer.echo(f"removed: {len(entries) - len(kept)}")


def _path(given: Path | None) -> Path:
    """The keys file: as given, or by CAPTIONQ_API_KEYS."""
    found = given or os.environ.get("CAPTIONQ_API_KEYS")
    if not found:
        raise ValueError("Which file? Set CAPTIONQ_API_KEYS, or give --keys FILE.")
    return Path(found).expanduser()


def _entries(path: Path) -> tuple[KeyEntry, ...]:
    return keys.read(path).entries if path.exists() else ()


def _scopes(given: list[str] | None) -> tuple[Scope, ...]:
    if not given:
        return ("submit", "read", "upload")
    unknown = [word for word in given if word not in SCOPES]
    if unknown:
        raise ValueError(f"scopes are {', '.join(SCOPES)}, not {', '.join(unknown)}.")
    return tuple(scope for scope in SCOPES if scope in given)


def _shown(entry: KeyEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "fingerprint": entry.fingerprint,
        "scopes": list(entry.scopes),
        "rate": entry.rate,
        "created_at": entry.created_at.isoformat(),
    }


def _line(entry: KeyEntry) -> str:
    return (
        f"{entry.id}  {entry.fingerprint}  {','.join(entry.scopes)}  {entry.rate:g}/s  "
        f"{entry.created_at:%Y-%m-%d}"
    )
