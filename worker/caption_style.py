"""What a style makes of a caption's text: how it begins and how it ends. Pure, by tables.

Short and long captions end cleanly. An alternative text also says nothing of being a picture, for
a screen reader has said that already (https://www.w3.org/WAI/tutorials/images/tips/), and begins
with a capital where the script has any. No full stop is added: a caption is a phrase. Words that
follow an opening stay as they are ("ein Bild eines Hundes" leaves "Eines Hundes": a screen reader
says "Bild" before it).
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from producer.options import Style

__all__ = ["once", "styled"]

DANGLING_MARKS = " \t\n,;:-–—…([{«„،؛、，；："
"""Characters that end no text."""


@dataclass(frozen=True)
class Manners:
    """How captions of a language begin and end.

    openings: patterns of what says that this is a picture, and what takes their place. never_last:
    words that end no caption. rarely_last: words that end none that was cut. spaced: whether words
    have spaces between them.
    """

    openings: "tuple[Opening, ...]" = ()
    never_last: frozenset[str] = frozenset()
    rarely_last: frozenset[str] = frozenset()
    spaced: bool = True


Opening = tuple[re.Pattern[str], str]


def _opening(*parts: str, instead: str = "") -> Opening:
    return re.compile("".join(parts), re.IGNORECASE), instead


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FRENCH = (
    r"^(?:(?:c['’]est|voici) )?(?:(?:une|la|l['’]|cette|un|le|ce) ?)?(?:vieille )?",
    r"(?:image|photo|photographie|cliché)(?: en noir et blanc| floue)? ",
)

_ARABIC = r"^(?:هذه )?(?:ال)?صورة (?:فوتوغرافية )?"
# What follows the first letter of words with ل of their own: a player, a painting, a toy.
_OWN_LAM = (
    r"(?:اعب|افت|اجئ|ابتوب|باس|عبة|وحة|وحات|ون(?:ين)?\b|يل\b|يلة|يلي|يمون|ؤلؤ|سان|حم\b|حوم|"
    r"بن\b|وز\b|بؤ)"
)

MANNERS: dict[str, Manners] = {
    "en": Manners(
        openings=(
            _opening(
                r"^(?:(?:there|here|this|it)(?: is|'s) )?(?:(?:an?|the|this|some|two) )?",
                r"(?:(?:close[- ]?up|black[- ]and[- ]white|colou?r|old|vintage|stock|blurry) )*",
                r"(?:pictures?|images?|photos?|photographs?|pics?|snapshots?|graphics?) ",
                r"(?:of|with|(?:(?:that|which) )?(?:shows?|showing|depicts?|depicting)) ",
            ),
        ),
        never_last=_words("a an the and or nor but & of with"),
        rarely_last=_words(
            "in on at to from by for near next behind under over above below between into onto "
            "through along around beside against across inside outside while that which who whose "
            "as is are was were has have his her its their some very"
        ),
    ),
    "de": Manners(
        openings=(
            _opening(
                r"^(?:(?:das|dies|hier|es) ist )?(?:(?:ein|eine|das|die|dieses|diese) )?",
                r"(?:(?:alte[sr]?|unscharfe[sr]?|farbige[sr]?) )*",
                r"(?:(?:schwarz-?weiß)?(?:bild|foto|photo|fotografie|aufnahme)|abbildung|grafik) ",
                r"(?:(?:von|vom|mit|zeigt) |(?=eine[sr] ))",
            ),
        ),
        never_last=_words(
            "ein eine einen einem einer eines der die das den dem des und oder sowie von vom mit"
        ),
        rarely_last=_words(
            "in im auf an am bei zu zum zur aus vor hinter neben unter über zwischen durch für um "
            "während welche welcher welches ist sind war hat haben sein seine ihr ihre"
        ),
    ),
    "fr": Manners(
        openings=(
            _opening(*_FRENCH, "du ", instead="le "),
            _opening(
                *_FRENCH,
                r"(?:de |d['’]|avec |montrant |représentant |qui (?:montre|représente) |(?=des ))",
            ),
        ),
        never_last=_words("un une le la les l' l’ de du des d' d’ et ou avec"),
        rarely_last=_words(
            "à au aux dans sur sous sans pour par entre devant derrière vers chez en près qui que "
            "dont est sont a ont son sa ses leur leurs très"
        ),
    ),
    "ar": Manners(
        openings=(
            _opening(_ARABIC, f"لل(?={_OWN_LAM})", instead="الل"),
            _opening(_ARABIC, "لل", instead="ال"),
            _opening(
                _ARABIC,
                f"(?:(?=ل{_OWN_LAM})|ل(?!{_OWN_LAM})|",
                r"من |عن |مع |فيها |تُ?ظهر |تُ?بيّ?ن )",
            ),
        ),
        never_last=_words("و أو ثم مع من"),
        rarely_last=_words("في إلى على عن بين تحت فوق أمام خلف وراء بجانب قرب الذي التي هو هي"),
    ),
    "zh": Manners(
        openings=(
            _opening(r"^(?:这是一?|这|一)[张幅](.+)的(?:图片|照片|图像|相片)$", instead=r"\1"),
            _opening(
                r"^(?:这?(?:一?[张幅])?)(?:图片|照片|图像|相片|图)[中里上]?",
                r"(?:显示了?|展示了?|描绘了?|是|有|，|：|,|:)",
            ),
        ),
        never_last=_words("的 得 和 与 及 或 以及"),  # not 地 and 跟: 草地, 鞋跟
        rarely_last=_words("在 有 着 是 把 被 从 对 于 向 一 一个 一只 一张 一条 一些 两个 几个"),
        spaced=False,
    ),
}
"""By primary language subtag. Other languages lose dangling marks alone."""

_UNKNOWN = Manners()


def styled(
    text: str, style: Style | None, language: str, *, cut: bool, prefixed: bool = False
) -> str:
    """A caption's text in a style; never longer than it was, and never empty if it was not.

    Args:
        language: of the text, BCP 47.
        cut: it ended for want of room, not by itself.
        prefixed: the job said how it begins: that stays.

    >>> styled("a picture of a dog and a", "alt_text", "en", cut=True)
    'A dog'
    """
    if style is None:
        return text
    manners = MANNERS.get(language.partition("-")[0].lower(), _UNKNOWN)
    if style == "alt_text" and not prefixed:
        text = _without_opening(text, manners)
    text = _ended(text, manners, cut)
    if style == "alt_text" and len(text[:1].upper()) == 1:
        text = text[:1].upper() + text[1:]
    return text


class Counted(Protocol):
    """A caption, and how many samples say it; 1 of beams, which have no seed."""

    @property
    def text(self) -> str: ...

    @property
    def count(self) -> int: ...

    @property
    def seed(self) -> int | None: ...


CaptionT = TypeVar("CaptionT", bound=Counted)


def once(captions: Iterable[CaptionT]) -> list[tuple[CaptionT, int]]:
    """Captions that a style has made equal as their first, with the count of all."""
    first: dict[str, CaptionT] = {}
    counts: Counter[str] = Counter()
    for one in captions:
        kept = first.setdefault(one.text, one)
        counts[one.text] += one.count if kept is one or one.seed is not None else 0
    return [(one, counts[text]) for text, one in first.items()]


def _without_opening(text: str, manners: Manners) -> str:
    for pattern, instead in manners.openings:
        shorter = pattern.sub(instead, text, count=1)
        if shorter != text and shorter.strip():
            return _without_opening(shorter, manners)  # "a picture of a photo of"
    return text


def _ended(text: str, manners: Manners, cut: bool) -> str:
    """The text without what cannot be its end. Behind a word that is left out, it is cut."""
    least = kept = text.rstrip(DANGLING_MARKS)
    while kept:
        words = manners.never_last | (manners.rarely_last if cut else frozenset())
        last = _last(kept, words, manners.spaced)
        if not last:
            return kept
        kept, cut = kept[: -len(last)].rstrip(DANGLING_MARKS), True
    return least or text.strip()  # it is made of nothing else


def _last(text: str, words: frozenset[str], spaced: bool) -> str:
    """The end of the text that is one of these words; empty without."""
    if spaced:
        last = "".join(text.rsplit(maxsplit=1)[-1:])
        elided = re.split(r"(?<=\w['’])", last)[-1]  # "un" of "d'un"
        return next((one for one in (last, elided) if one and one.casefold() in words), "")
    return max((word for word in words if text.endswith(word)), key=len, default="")
