"""What goes wrong at a command line, in one sentence on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from worker.settings import EX_CONFIG, SettingsError, WorkerSettings, load_settings


def fail(sentence: str, status: int = 2) -> typer.Exit:
    """Say what is wrong on stderr; raise what is returned."""
    print(f"captionq-worker: {sentence}", file=sys.stderr)
    return typer.Exit(status)


def checked_settings() -> WorkerSettings:
    """The settings, or one sentence and the end."""
    try:
        return load_settings()
    except SettingsError as exc:
        raise fail(str(exc), EX_CONFIG) from None


@contextmanager
def clear_errors() -> Iterator[None]:
    """Mistakes of the caller, missing files and refused checkpoints as one sentence, status 2."""
    from worker.blip.errors import BlipError

    try:
        yield
    except BrokenPipeError:  # the reader of our output has gone: typer ends quietly
        raise
    except (BlipError, ValueError, OSError) as exc:
        raise fail(str(exc)) from None
