"""The places where a worker's packs are, by its settings."""

from collections.abc import Iterable
from pathlib import Path

from worker.packs.folder import FolderPlace
from worker.packs.library import Place
from worker.settings import WorkerSettings, bundled_packs

__all__ = ["places_of"]


def places_of(settings: WorkerSettings, models: Iterable[str]) -> list[Place]:
    """Those of CAPTIONQ_PACKS, in their order, then the package's own for its own checkpoint, if
    that is among the models."""
    places = [_place(entry, settings) for entry in settings.pack_places]
    own = {bundled_packs(model) for model in models}
    return places + [FolderPlace(folder, optional=True) for folder in own if folder is not None]


def _place(entry: str, settings: WorkerSettings) -> Place:
    if "://" not in entry:
        return FolderPlace(Path(entry).expanduser())
    from worker.packs.bucket import BucketPlace

    return BucketPlace(
        entry,
        settings.home / "packs",
        settings.pack_max_bytes,
        settings.s3_endpoint_url,
        settings.s3_request_payer,
    )
