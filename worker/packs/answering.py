"""The packs that answer one job, held while it waits for the device."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from producer.language import PackFacts

if TYPE_CHECKING:
    from worker.blip.pack import Pack

__all__ = ["NO_PACKS", "Answering"]


@dataclass(frozen=True)
class Answering:
    """pack: for the job's own task; weigher: for weighing captions. None: the checkpoint itself."""

    pack: "Pack | None" = None
    weigher: "Pack | None" = None

    @property
    def facts(self) -> PackFacts | None:
        """What a result says of the pack."""
        return _facts(self.pack)

    @property
    def weigher_facts(self) -> PackFacts | None:
        """What a result says of the weigher."""
        return _facts(self.weigher)

    @property
    def facts_json(self) -> list[Any]:
        """Both, as JSON: others answer otherwise."""
        return [one and one.model_dump(mode="json") for one in (self.facts, self.weigher_facts)]

    @property
    def key(self) -> str | None:
        """What tells the pack from others."""
        return _key(self.pack)

    @property
    def weigher_key(self) -> str | None:
        """What tells the weigher from others."""
        return _key(self.weigher)


NO_PACKS = Answering()


def _facts(pack: "Pack | None") -> PackFacts | None:
    if pack is None:
        return None
    return PackFacts(name=pack.name, language=pack.language, revision=pack.revision)


def _key(pack: "Pack | None") -> str | None:
    return None if pack is None else f"{pack.name}@{pack.revision}"
