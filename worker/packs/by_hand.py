"""The pack that --language and --pack name, where there is no worker."""

from pathlib import Path
from typing import TYPE_CHECKING

from producer.errors import JobFailed
from worker.clear_errors import checked_settings
from worker.errors import Fault
from worker.packs.choice import agrees
from worker.packs.library import Packs, PacksMissing
from worker.packs.places import places_of

if TYPE_CHECKING:
    from worker.blip import Engine
    from worker.blip.pack import Pack

__all__ = ["language_of", "pack_of"]


def pack_of(
    engine: "Engine", task: str, model: str, language: str | None, pack: str | None
) -> "Pack | None":
    """The pack, loaded; None where the checkpoint does without one.

    model: as the settings name the checkpoint. pack: a folder, or a name among the packs of the
    settings.

    Raises:
        PackError: the folder holds none that the checkpoint can use.
        ValueError: there is none, or the two do not go together; says what there is.
    """
    if pack is not None and Path(pack).is_dir():
        found = engine.load_pack(pack)
        if found.task != task:
            raise ValueError(f"{found.name} is for {found.task}")
        if language is not None and not agrees(language, found.language or _own()):
            raise ValueError(f"{found.name} is of {found.language or _own()}, not of {language}")
        return found
    if language is None and pack is None:
        return None
    settings = checked_settings()
    packs = Packs({task: engine}, places_of(settings, [model]), language=settings.base_language)
    try:
        packs.start()
        chosen = packs.choose(task, language, pack)
        return None if chosen is None else packs.take(chosen)
    except (PacksMissing, JobFailed, Fault) as exc:
        raise ValueError(getattr(exc, "message", str(exc))) from exc
    finally:
        packs.close()


def language_of(pack: "Pack | None") -> str:
    """What is spoken: the pack's language, or the checkpoint's own."""
    return (pack and pack.language) or _own()


def _own() -> str:
    return checked_settings().base_language
