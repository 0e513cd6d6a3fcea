"""A pack's folder, read and verified against the checkpoint that it is to adapt.

The files are data: none of them is ever executed.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

from worker.blip.adapter_files import (
    CONFIG_FILE,
    TENSOR_FILE,
    Adapter,
    read_adapter,
)
from worker.blip.adapter_names import BIAS, Place, places, whole_tensors, words_name
from worker.blip.checkpoint import Checkpoint
from worker.blip.errors import CheckpointError, PackError
from worker.blip.pack_card import PackCard, read_card
from worker.blip.tokenizer import Tokenizer
from worker.blip.weights import Weights

MAX_TOKENIZER_BYTES = 100_000_000  # XLM-R's tokenizer.json, of 250,002 pieces, has 17 MB
TOKENIZER_FILES = (
    "added_tokens.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


@dataclass(frozen=True)
class PackContent:
    """What a pack's files hold.

    places: where the factors of `adapter` lie in our modules. tokenizer: its own, else the
    checkpoint's. revision: 12 hex digits of the SHA-256 over the files that decide what it says;
    its card and README do not.
    """

    card: PackCard
    adapter: Adapter
    places: Mapping[str, Place]
    tokenizer: Tokenizer
    revision: str


class PackFiles:
    """Reads packs of one checkpoint. Any thread may ask, several at once too."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._folder, self._text, self._tasks = checkpoint.folder, checkpoint.text, checkpoint.tasks
        self._model_id, self._revision = checkpoint.model_id, checkpoint.revision
        self._tokenizer = checkpoint.tokenizer
        self._lock = Lock()

    def read(self, folder: Path, projection_size: int = 0) -> PackContent:
        """Read and verify. projection_size: of the checkpoint's ITC vectors, where it has some.

        Raises:
            PackError: the folder is no pack, the pack is another checkpoint's, or cannot be used;
                the message says why.
        """
        card = read_card(folder)
        try:
            if card.task not in self._tasks:
                raise PackError(f"it is for {card.task}, which {self._model_id} is not loaded for")
            self._check_base(card)
            found = places(card.task, self._text)
            adapter = read_adapter(
                folder,
                {name: (place.size_out, place.size_in) for name, place in found.items()},
                whole_tensors(card.task, self._text, projection_size),
            )
            tokenizer = self._own_tokenizer(folder, card, adapter)
            return PackContent(card, adapter, found, tokenizer, _revision(folder))
        except PackError as exc:
            raise PackError(f"{card.name}: {exc}") from exc

    def _check_base(self, card: PackCard) -> None:
        if card.base.revision != self._revision and card.base.digest != self.digest():
            raise PackError(
                f"it was trained on {card.base.model_id} at revision {card.base.revision}, and "
                f"cannot adapt {self._model_id} at revision {self._revision}"
            )

    def digest(self) -> str:
        """SHA-256 over the checkpoint's tensors; reads all, the first time."""
        with self._lock:  # that two threads do not read the checkpoint at once
            return self._digest_of_all

    @cached_property
    def _digest_of_all(self) -> str:
        return Weights(self._folder).digest_of("")

    def _own_tokenizer(self, folder: Path, card: PackCard, adapter: Adapter) -> Tokenizer:
        """The pack's tokenizer, or the checkpoint's; its words are those that have embeddings."""
        known = self._text.vocab_size
        size = len(adapter.tensors.get(words_name(card.task), range(known)))
        if card.task == "caption" and size != len(adapter.tensors.get(BIAS, range(known))):
            raise PackError(f"it has embeddings of {size} tokens, and another number of {BIAS}")
        own = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
        if not own:
            if size != known:
                raise PackError(f"it has embeddings of {size} tokens, and no tokenizer for them")
            return self._tokenizer
        for file in own:
            if file.stat().st_size > MAX_TOKENIZER_BYTES:
                raise PackError(f"{file.name} is larger than {MAX_TOKENIZER_BYTES} bytes")
        try:
            tokenizer = Tokenizer(folder, {"vocab_size": size})
        except CheckpointError as exc:
            raise PackError(f"its tokenizer cannot be used: {exc}") from exc
        except MemoryError:
            raise
        except Exception as exc:  # of a broken file these libraries raise anything
            raise PackError(f"its tokenizer cannot be used: {type(exc).__name__}") from exc
        if tokenizer.last_id >= size:
            raise PackError(
                f"it has embeddings of {size} tokens, and its tokenizer ids up to "
                f"{tokenizer.last_id}"
            )
        return tokenizer


def _revision(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in sorted((CONFIG_FILE, TENSOR_FILE, *TOKENIZER_FILES)):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                own = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{name} {own}\n".encode())
    return digest.hexdigest()[:12]
