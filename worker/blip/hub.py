"""Where a checkpoint comes from: a folder, or a model id on the Hugging Face hub, pinned."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from worker.blip.errors import CheckpointError
from worker.blip.weights import PICKLE, SAFETENSORS, SAFETENSORS_INDEX, Weights

SOURCE_FILE = "source.json"  # what fetch_model records: {"model_id": ..., "revision": ...}
_DESCRIPTION = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "README.md",
    "LICENSE*",
    SOURCE_FILE,
]
_SAFETENSORS = [SAFETENSORS, SAFETENSORS_INDEX, "model-*-of-*.safetensors"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")

Download = Callable[..., Any]


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk. `revision` is None for a folder that records none."""

    folder: Path
    model_id: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.model_id} at revision {self.revision or 'unknown'} in {self.folder}"


def resolve(
    model: str | Path, revision: str | None = None, download: Download = snapshot_download
) -> Source:
    """Find a checkpoint: a folder as it is, else a hub id, downloaded or from the local cache.

    The revision of a folder is the one that fetch_model recorded, else a digest of its weights.
    Raises CheckpointError when there is no such folder or id, when the hub cannot be reached and
    nothing is cached, or when a folder is not of the revision asked for.
    """
    folder = Path(model)
    if folder.is_dir():
        source = _local(folder)
        if revision is not None:
            actual = source.revision or Weights(folder).digest()
            if actual != revision:
                raise CheckpointError(f"{source.model_id} is revision {actual}, not {revision}")
        return source
    if not isinstance(model, str) or not _HUB_ID.fullmatch(model):
        raise CheckpointError(f"{str(model)!r} is neither a folder nor a hub id")
    return _download(model, revision, download)


def fetch_model(
    model: str,
    out: Path,
    revision: str | None = None,
    download: Download = snapshot_download,
) -> Source:
    """Copy a checkpoint into the folder `out`, to be loaded offline, and record its revision.

    Only the files that the engine reads are taken: safetensors where the checkpoint has them, else
    pytorch_model.bin. Raises CheckpointError as `resolve` does, and for an `out` that is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise CheckpointError(f"{out} is not empty")
    source = resolve(model, revision, download)
    out.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in source.folder.iterdir() if path.is_file())
    weights = [n for n in names if any(fnmatch(n, pattern) for pattern in _SAFETENSORS)]
    described = [n for n in names if any(fnmatch(n, pattern) for pattern in _DESCRIPTION)]
    for name in described + (weights or [n for n in names if n == PICKLE]):
        shutil.copyfile(source.folder / name, out / name)
    record = {"model_id": source.model_id, "revision": source.revision}
    (out / SOURCE_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return Source(out, source.model_id, source.revision)


def _local(folder: Path) -> Source:
    try:
        record = json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))
        return Source(folder, str(record["model_id"]), record["revision"])
    except FileNotFoundError:
        return Source(folder, folder.resolve().name, None)
    except (ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(f"{SOURCE_FILE} is not what fetch-model writes") from exc


def _download(model_id: str, revision: str | None, download: Download) -> Source:
    """Two passes, so that a checkpoint with safetensors never downloads its pickle as well."""
    try:
        folder = Path(
            download(model_id, revision=revision, allow_patterns=_DESCRIPTION + _SAFETENSORS)
        )
        if not any((folder / name).is_file() for name in (SAFETENSORS, SAFETENSORS_INDEX)):
            commit = folder.name
            folder = Path(
                download(model_id, revision=commit, allow_patterns=[*_DESCRIPTION, PICKLE])
            )
    except (OSError, ValueError) as exc:
        raise CheckpointError(
            f"cannot get {model_id} from the hub, and it is not cached: {exc}"
        ) from exc
    return Source(folder, model_id, folder.name)
