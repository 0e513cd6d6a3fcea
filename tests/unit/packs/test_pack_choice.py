"""Which pack answers a job: languages by RFC 4647, names, and both."""

import pytest

from producer.errors import ErrorCode, JobFailed
from worker.blip.pack_card import Base, PackCard
from worker.packs.choice import Unavailable, chosen, lookup
from worker.packs.found import Found, Served, why_not

BASE = Base("blip", "0123456789ab", "f" * 64)


def found(
    name: str, language: str | None = None, task: str = "caption", why: str | None = None
) -> Found:
    card = PackCard(name=name, task=task, base=BASE, language=language)  # type: ignore[arg-type]
    return Found(name=name, where=f"/packs/{name}", stamp="1", bytes=1, card=card, why_not=why)


@pytest.mark.parametrize(
    ("wanted", "tags", "answers"),
    [
        ("de", ["de"], "de"),
        ("DE", ["de"], "de"),
        ("de-AT", ["de"], "de"),
        ("de-at-1996", ["de", "de-AT"], "de-AT"),
        ("zh-Hant-CN-x-private1-private2", ["zh-Hant"], "zh-Hant"),  # the RFC's own example
        ("zh-Hant-CN-x-private1-private2", ["zh-Hant-CN-x"], None),  # no range ends in a singleton
        ("de-a-DE", ["de"], "de"),
        ("de", ["de-AT"], None),  # lookup goes to shorter tags alone
        ("d", ["de"], None),
        ("fr", [], None),
    ],
)
def test_languages_are_looked_up_as_rfc_4647_has_it(
    wanted: str, tags: list[str], answers: str | None
) -> None:
    assert lookup(wanted, tags) == answers


PACKS = [
    found("formal", "de"),
    found("de", "de"),
    found("pt", "pt-BR"),
    found("medical-v2"),
    found("weigher", "de", "match"),
    found("zh", "zh", why="it is of another revision"),
    found("zh-new", "zh"),
    found("ar", "ar", why="it is damaged"),
    found("twice", why="it is of another revision"),
    found("twice", "nl"),
]


@pytest.mark.parametrize(
    ("task", "language", "adapter", "name"),
    [
        ("caption", None, None, None),
        ("caption", "en", None, None),
        ("caption", "en-GB", None, None),
        ("caption", "de", None, "de"),  # before another of its language
        ("caption", "de-AT", None, "de"),
        ("caption", "pt-BR", None, "pt"),
        ("caption", "zh", None, "zh-new"),  # what can be used
        ("match", "de", None, "weigher"),
        ("caption", None, "medical-v2", "medical-v2"),
        ("caption", "en", "medical-v2", "medical-v2"),  # a domain speaks as the model does
        ("caption", "de", "formal", "formal"),
        ("caption", "de-CH", "formal", "formal"),
        ("caption", "nl", "twice", "twice"),
    ],
)
def test_given_a_language_or_a_name_then_this_pack_answers(
    task: str, language: str | None, adapter: str | None, name: str | None
) -> None:
    answers = chosen(PACKS, task, language, adapter, "en")
    assert (answers and answers.name) == name
    assert answers is None or answers.why_not is None


@pytest.mark.parametrize(
    ("task", "language", "adapter", "words"),
    [
        ("caption", "fr", None, "captions in fr. Languages: en (without a pack), de, nl, pt-BR, "),
        ("caption", "pt", None, "captions in pt."),
        ("caption", "ar", None, "The pack for ar cannot be used: it is damaged."),
        ("match", "fr", None, "matches texts in fr. Languages: en (without a pack), de."),
        ("caption", None, "absent", "absent. Languages: en (without a pack), de, nl, pt-BR, zh."),
        ("caption", None, "absent", " Adapters: formal, medical-v2, pt, twice, zh-new."),
        ("caption", None, "weigher", "The adapter weigher is for match."),
        ("caption", None, "ar", "The adapter ar cannot be used: it is damaged."),
        ("caption", None, "../../etc/passwd", "No adapter is named ../../etc/passwd."),
    ],
)
def test_given_what_there_is_not_then_the_message_lists_what_there_is(
    task: str, language: str | None, adapter: str | None, words: str
) -> None:
    with pytest.raises(Unavailable) as caught:
        chosen(PACKS, task, language, adapter, "en")
    assert caught.value.code is ErrorCode.LANGUAGE_UNAVAILABLE
    assert words in caught.value.message


def test_given_very_many_packs_then_the_message_stays_short() -> None:
    packs = [found(f"adapter-{number}") for number in range(1_000)]
    with pytest.raises(Unavailable, match="and 960 more") as caught:
        chosen(packs, "caption", "xx", None, "en")
    assert len(caught.value.message) < 1_000


@pytest.mark.parametrize(
    ("language", "adapter"), [("fr", "formal"), ("de", "medical-v2"), ("en", "formal")]
)
def test_given_a_language_that_is_not_the_adapters_then_the_job_is_invalid(
    language: str, adapter: str
) -> None:
    with pytest.raises(JobFailed, match=f"not of {language}") as caught:
        chosen(PACKS, "caption", language, adapter, "en")
    assert caught.value.code is ErrorCode.JOB_INVALID


def never() -> str:
    raise AssertionError("equal revisions need no digest")


@pytest.mark.parametrize(
    ("task", "base", "digest", "usable"),
    [
        ("caption", BASE, never, True),
        ("caption", Base("copy", "another", "f" * 64), lambda: "f" * 64, True),
        ("caption", Base("other", "another", "a" * 64), lambda: "f" * 64, False),
        ("match", BASE, never, False),
    ],
)
def test_a_pack_can_be_used_with_the_weights_that_it_was_trained_on(
    task: str, base: Base, digest: object, usable: bool
) -> None:
    card = PackCard(name="de", task=task, base=base)  # type: ignore[arg-type]
    served = {"caption": Served("blip", BASE.revision, digest)}  # type: ignore[arg-type]
    assert (why_not(card, served) is None) == usable
