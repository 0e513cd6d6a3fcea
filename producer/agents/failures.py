"""What an agent is told when a tool could not do it: a code, what happened, and what to do."""

from pydantic import ValidationError

from producer.agents.jobs import NoAnswer
from producer.contract import ErrorCode, JobFailed
from producer.errors import BrokerFull, BrokerUnavailable
from producer.index.table import NoIndex
from producer.manifest.parquet import NotInstalled
from producer.remedies import REMEDIES


def told(exc: BaseException) -> str | None:
    """One line for an error that was to be expected: `code: what happened. What to do.` None for
    any other, of which nothing is to be shown.

    >>> told(JobFailed("image_empty"))
    'image_empty: The image file is empty. What to do: The file has no bytes: use another.'
    """
    match exc:
        case JobFailed():
            return _line(exc.code, exc.message, REMEDIES[exc.code])
        case NoAnswer():
            return _line(
                "timeout",
                f"{exc}.".capitalize(),
                "Try again; if it stays so, a worker has to be started (captionq-worker run), or "
                "more of them.",
            )
        case BrokerFull():
            return _line("broker_full", str(exc), "Try again when workers have taken some of it.")
        case BrokerUnavailable():
            return _line(
                "broker_unavailable",
                str(exc),
                "The person who set this up has to check that it runs, and CAPTIONQ_BROKER_URL.",
            )
        case ValidationError():
            first = exc.errors(include_url=False, include_input=False)[0]
            field = ".".join(map(str, first["loc"]))
            code = ErrorCode.JOB_INVALID
            return _line(code, f"{field}: {first['msg']}.".removeprefix(": "), REMEDIES[code])
        case NoIndex():
            return f"index_missing: {exc}"
        case NotInstalled():
            return f"not_installed: {exc}"
        case ValueError() | OSError():
            return f"input_invalid: {exc}"
    return None


def _line(code: str, message: str, remedy: str) -> str:
    return f"{code}: {message} What to do: {remedy}"
