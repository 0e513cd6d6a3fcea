"""Which pack answers a job: by language, by name, or by both. Pure.

Languages are looked up as RFC 4647, section 3.4 has it: "de-AT" is answered by "de" where there is
no "de-AT". The checkpoint has a language of its own, which needs no pack.
"""

from collections.abc import Iterable, Iterator, Sequence

from producer.errors import PUBLIC_TEXT, ErrorCode, JobFailed
from worker.packs.found import Found

__all__ = ["MOST_NAMED", "Unavailable", "agrees", "chosen", "lookup"]

MOST_NAMED = 40
"""Languages, and adapters, that a message names."""


class Unavailable(JobFailed):
    """`language_unavailable`, listing what there is."""

    def __init__(self, why: str) -> None:
        super().__init__(ErrorCode.LANGUAGE_UNAVAILABLE, why)


def lookup(wanted: str, tags: Iterable[str]) -> str | None:
    """The tag that answers a language range (RFC 4647, section 3.4), or None.

    >>> lookup("zh-Hant-x-private", ["zh", "zh-hant"]), lookup("de", ["fr", "de-AT"])
    ('zh-hant', None)
    """
    by_lower_case = {tag.lower(): tag for tag in tags}
    for shorter in _truncated(wanted):
        if shorter in by_lower_case:
            return by_lower_case[shorter]
    return None


def agrees(wanted: str, language: str) -> bool:
    """Whether a pack of this language answers the language that is wanted."""
    return lookup(wanted, [language]) is not None


def chosen(
    packs: Sequence[Found], task: str, language: str | None, adapter: str | None, own: str
) -> Found | None:
    """The pack that answers a job of `task`; None where the checkpoint does without one.

    packs: in the order of their places: of those of one name, or one language, the first that can
    be used is taken, and before it one that is named as its language. own: the checkpoint's own
    language.

    Raises:
        Unavailable: there is none, or none that can be used here; says why.
        JobFailed: job_invalid: the adapter is of another language.
    """
    if adapter is not None:
        return _named(packs, task, language, adapter, own)
    if language is None:
        return None
    of_task = [one for one in packs if one.task == task and one.language]
    usable = [one for one in of_task if one.why_not is None]
    tag = lookup(language, [*(one.language for one in usable if one.language), own])
    if tag is not None:
        if tag.lower() == own.lower():
            return None
        same = [one for one in usable if (one.language or "").lower() == tag.lower()]
        return next((one for one in same if one.name == tag.lower()), same[0])
    for one in of_task:  # it is there, and cannot be used
        if one.language and agrees(language, one.language):
            raise Unavailable(f"The pack for {one.language} cannot be used: {one.why_not}.")
    raise Unavailable(f"{_nothing(task, language)} {_what_there_is(packs, task, own)}")


def _named(
    packs: Sequence[Found], task: str, language: str | None, adapter: str, own: str
) -> Found:
    named = [one for one in packs if one.name == adapter]
    of_task = [one for one in named if one.task in (task, None)]
    if not named:
        raise Unavailable(f"No adapter is named {adapter}. {_what_there_is(packs, task, own)}")
    if not of_task:
        raise Unavailable(
            f"The adapter {adapter} is for {named[0].task}. {_what_there_is(packs, task, own)}"
        )
    found = next((one for one in of_task if one.why_not is None), of_task[0])
    if found.why_not is not None:
        raise Unavailable(f"The adapter {adapter} cannot be used: {found.why_not}.")
    if language is not None and not agrees(language, found.language or own):
        code = ErrorCode.JOB_INVALID
        speaks = found.language or f"{own}, as the model"
        detail = f"language: the adapter {adapter} is of {speaks}, not of {language}"
        raise JobFailed(code, f"{PUBLIC_TEXT[code]} {detail}")
    return found


def _truncated(wanted: str) -> Iterator[str]:
    """A range in lower case, then without its last subtag, and so on; singletons go along."""
    subtags = wanted.lower().split("-")
    while subtags:
        yield "-".join(subtags)
        subtags.pop()
        if subtags and len(subtags[-1]) == 1:
            subtags.pop()


def _nothing(task: str, language: str) -> str:
    return f"Nothing here {'captions in' if task == 'caption' else 'matches texts in'} {language}."


def _what_there_is(packs: Sequence[Found], task: str, own: str) -> str:
    usable = [one for one in packs if one.task == task and one.why_not is None]
    languages = sorted({one.language for one in usable if one.language} - {own})
    others = sorted({one.name for one in usable} - set(languages))
    words = f"Languages: {_listed([f'{own} (without a pack)', *languages])}."
    return f"{words} Adapters: {_listed(others)}." if others else words


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
