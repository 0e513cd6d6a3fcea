"""The scorers of an engine: the checkpoint's own, and one for each match pack."""

from collections.abc import Callable
from weakref import WeakKeyDictionary

from worker.blip.matching import Matcher
from worker.blip.pack import Pack
from worker.blip.pack_rows import packs_of
from worker.blip.scoring import Scorer
from worker.blip.text_cache import TextCache
from worker.blip.tokenizer import Tokenizer


class Scorers:
    """Scorers by pack, each with a text cache of its own; a pack's goes with the pack.

    own: of the checkpoint itself.
    """

    def __init__(self, matcher: Matcher, tokenizer: Tokenizer, cache: TextCache) -> None:
        self.own = Scorer(matcher, tokenizer.pad_id, cache)
        self._by_pack: WeakKeyDictionary[Pack, Scorer] = WeakKeyDictionary()

    def of(self, pack: Pack | None) -> Scorer:
        """The scorer of a pack. Raises ValueError for one that is of another engine, or task."""
        if pack is None:
            return self.own
        found = self._by_pack.get(pack)
        if found is None:
            packs_of(pack, 1, self.own.matcher)
            assert pack.matcher is not None  # noqa: S101 - for mypy: what it adapts is a matcher
            found = Scorer(pack.matcher, pack.tokenizer.pad_id, TextCache())
            found.on_forward = self.own.on_forward
            self._by_pack[pack] = found
        return found

    def tell(self, progress: Callable[[], None]) -> None:
        """Call `progress` after each forward of any of them."""
        for scorer in (self.own, *self._by_pack.values()):
            scorer.on_forward = progress
