"""A checkpoint's weight files: model.safetensors, sharded or not, else pytorch_model.bin.

Pickles are read with weights_only=True: no code of the file runs. TensorFlow and Flax files are
not read at all.
"""

import hashlib
import json
import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker.blip.errors import CheckpointError

SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
_FOREIGN = ("tf_model.h5", "flax_model.msgpack")


class Weights:
    """The tensors of one checkpoint folder, by name. Raises CheckpointError if there are none."""

    def __init__(self, folder: Path) -> None:
        self.files = _weight_files(folder)
        self._pickled: dict[str, Tensor] | None = None
        if self.files[0].name == PICKLE:
            self._pickled = _unpickle(self.files[0])
            self.names = frozenset(self._pickled)
        else:
            self.names = frozenset(name for file in self.files for name in _names(file))

    def load(
        self, prefixes: Iterable[str], dtype: torch.dtype, device: torch.device
    ) -> dict[str, Tensor]:
        """The tensors whose names start with one of `prefixes`, as `dtype` on `device`."""
        wanted = tuple(prefixes)
        tensors: dict[str, Tensor] = {}
        for name, tensor in (self._pickled or {}).items():
            if name.startswith(wanted):
                tensors[name] = tensor.to(device, dtype)
        for file in self.files if self._pickled is None else ():
            with safe_open(file, framework="pt") as tensor_file:
                for name in tensor_file.keys():  # noqa: SIM118 - it is no mapping
                    if name.startswith(wanted):
                        tensors[name] = tensor_file.get_tensor(name).to(device, dtype)
        return tensors

    def digest(self) -> str:
        """The first 12 hex digits of the SHA-256 over the weight files."""
        digest = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:12]

    def digest_of(self, prefix: str) -> str:
        """SHA-256 over the tensors whose names start with `prefix`, as float32: equal for equal
        weights, however they are spread over files."""
        digest = hashlib.sha256()
        for name in sorted(name for name in self.names if name.startswith(prefix)):
            # One at a time: memory is what a large model has least to spare of.
            tensor = self.load([name], torch.float32, torch.device("cpu"))[name]
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


def _weight_files(folder: Path) -> list[Path]:
    if (folder / SAFETENSORS).is_file():
        return [folder / SAFETENSORS]
    if (folder / SAFETENSORS_INDEX).is_file():
        try:
            index = json.loads((folder / SAFETENSORS_INDEX).read_text(encoding="utf-8"))
            shards = sorted(set(index["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise CheckpointError(f"{SAFETENSORS_INDEX} names no shards") from exc
        missing = [n for n in shards if Path(n).name != n or not (folder / n).is_file()]
        if missing:
            raise CheckpointError(f"the checkpoint lacks the shards {', '.join(missing)}")
        return [folder / name for name in shards]
    if (folder / PICKLE).is_file():
        return [folder / PICKLE]
    foreign = [name for name in _FOREIGN if (folder / name).is_file()]
    if foreign:
        raise CheckpointError(
            f"the checkpoint has {foreign[0]} alone; TensorFlow and Flax are not supported, "
            f"{SAFETENSORS} or {PICKLE} is needed"
        )
    raise CheckpointError(f"the checkpoint has neither {SAFETENSORS} nor {PICKLE}")


def _names(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="pt") as tensors:
            return list(tensors.keys())
    except SafetensorError as exc:
        raise CheckpointError(f"{file.name} is no readable safetensors file") from exc


def _unpickle(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as exc:
        raise CheckpointError(f"{file.name} is more than plain weights; it was not run") from exc
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{file.name} holds something other than named tensors")
    return state
