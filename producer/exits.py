"""How the command line ends: documented exit codes, and one sentence in place of a traceback."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import typer
from pydantic import ValidationError

from producer.contract import JobFailed
from producer.embedded import EmbeddedUnavailable
from producer.errors import BrokerFull, BrokerUnavailable, UnknownJob
from producer.settings import ProducerSettings

Settings = TypeVar("Settings", bound=ProducerSettings)

JOB_FAILED, USAGE, UNREACHABLE, TIMED_OUT, UNKNOWN_JOB = 1, 2, 3, 4, 5

EXIT_CODES = """
Exit codes: 0 all went well; 1 a job ended without a result; 2 wrong usage or input; 3 the broker
or the results store cannot be reached or is full; 4 not ended in time; 5 unknown job.
"""


@contextmanager
def exit_codes() -> Iterator[None]:
    """End with one sentence and the documented code instead of a traceback."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output has gone: typer ends quietly
        raise
    except BrokerFull as exc:
        _fail(UNREACHABLE, f"{exc} Try again when workers have taken some of it.")
    except EmbeddedUnavailable as exc:
        _fail(UNREACHABLE, str(exc))
    except BrokerUnavailable as exc:
        _fail(UNREACHABLE, f"{exc} Is it running, and is CAPTIONQ_BROKER_URL right?")
    except UnknownJob as exc:
        _fail(UNKNOWN_JOB, str(exc))
    except TimeoutError as exc:
        _fail(TIMED_OUT, f"{exc} Is a worker running? See: captionq status ID")
    except ValidationError as exc:
        _fail(USAGE, _fault(exc))
    except (JobFailed, ValueError, OSError) as exc:
        _fail(USAGE, str(exc))


def _fail(code: int, sentence: str) -> NoReturn:
    typer.echo(f"captionq: {sentence}", err=True)
    raise typer.Exit(code)


def read_settings() -> ProducerSettings:
    """The settings of the environment.

    Raises:
        ValueError: naming the variable that cannot be used.
    """
    return named_settings(ProducerSettings)


def named_settings(kind: type[Settings], **given: Any) -> Settings:
    """Settings of some kind: as `given`, and from the environment.

    Raises:
        ValueError: naming the variable that cannot be used.
    """
    try:
        return kind(**given)
    except ValidationError as exc:
        prefix = str(ProducerSettings.model_config["env_prefix"])
        raise ValueError(_fault(exc, lambda field: prefix + field.upper())) from exc


def _fault(exc: ValidationError, name: Callable[[str], str] = str) -> str:
    first = exc.errors(include_url=False, include_input=False)[0]
    return f"{name('.'.join(map(str, first['loc'])))}: {first['msg']}."
