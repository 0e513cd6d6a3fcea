"""What an agent may name as an image: an address, or a file below one folder."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from producer.settings import ProducerSettings
from producer.upload import uris

REMOTE = ("https", "http", "s3")


@dataclass(frozen=True)
class Images:
    """Images that agents may name. `root`: the folder below which their files lie; None: no files.

    A path is seen from the root, and may be absolute. Links are followed, and have to stay below
    it: what a person would call the folder's content is allowed, a way out of it is not.
    """

    settings: ProducerSettings
    root: Path | None = None

    def uri(self, named: str) -> str:
        """The URI of an image for a job: itself, or that of the file, copied to S3 where the
        settings say so.

        Raises:
            ValueError: it is no file that may be read, or there is none; nothing is uploaded.
            UploadFailed: S3 did not take it.
        """
        parts = urlsplit(named)
        if parts.scheme.lower() in REMOTE and "://" in named:
            return named
        path = unquote(parts.path) if named.lower().startswith("file://") else named
        [found] = uris([str(self.file(path))], self.settings)
        return found

    def file(self, named: str) -> Path:
        """The file of a path. Raises ValueError as `uri`."""
        if self.root is None:
            raise ValueError(
                "Files of this machine may not be read: the person who set this up has to allow a "
                "folder (captionq mcp --root FOLDER). URLs and s3:// can be had without."
            )
        root = self.root.resolve()
        try:
            path = (root / named).resolve()
        except (OSError, RuntimeError, ValueError) as exc:  # a loop of links, a zero byte
            raise ValueError(f"There is no file {named!r}.") from exc
        if not path.is_relative_to(root):
            raise ValueError(f"{named!r} lies outside {root}, whose files alone may be read.")
        if not path.is_file():
            raise ValueError(f"There is no file {named!r} in {root}.")
        return path
