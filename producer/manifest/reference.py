"""One image as a source names it, and where that is."""

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from producer.contract import ImageRef, Text
from producer.language import Language

_URI = TypeAdapter(ImageRef)
_TEXT = TypeAdapter(Text)
_LANGUAGE: TypeAdapter[str | None] = TypeAdapter(Language)


class BadReference(ValueError):  # noqa: N818 - that is what it is
    """A row names no image that a job could ask for; the text is one sentence for its reader."""


@dataclass(frozen=True, slots=True)
class Located:
    """Where an image is: its URI, and its path where it is a file here."""

    uri: str
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """What a source says of one image, not looked at yet.

    `position` is where it is said ("photos.csv:17", a file's path, an object's URI). `given` is a
    URI, or a path, which is relative to `folder`. `fault` says why it can be neither. `caption` is
    what the row says that the image shows, `language` the one that it is to be captioned in, where
    these are asked for.
    """

    position: str
    given: str
    folder: Path | None = None
    fault: str | None = None
    caption: str | None = None
    language: str | None = None

    def locate(self) -> Located:
        """Find the image.

        Raises:
            BadReference: the row is empty or broken, names neither a URI nor a file here, or has
                a caption or a language that no job can ask for.
        """
        if self.fault is not None:
            raise BadReference(self.fault)
        if not self.given:
            raise BadReference("The row names no image.")
        if self.caption is not None:
            _check_caption(self.caption)
        _check_language(self.language)
        if "://" in self.given:
            return Located(_checked(self.given))
        path = (self.folder or Path()) / self.given
        if not _is_file(path):
            raise BadReference("It is neither a URI nor a file here.")
        path = path.absolute()
        return Located(_checked(path.as_uri()), path)

    def remembered(self) -> Located:
        """Where the image was, when it is certain that it was somewhere."""
        if "://" in self.given:
            return Located(self.given)
        path = ((self.folder or Path()) / self.given).absolute()
        return Located(path.as_uri(), path)


def spelled(text: str) -> str:
    """Text that can be written as UTF-8: bytes of a name that are none show as `\\xNN`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text).decode(errors="backslashreplace")
    return text


def _checked(uri: str) -> str:
    try:
        return _URI.validate_python(uri)
    except ValidationError as exc:
        words = exc.errors(include_url=False, include_input=False)[0]["msg"]
        words = words.removeprefix("Value error, ")
        raise BadReference(f"{words[:1].upper()}{words[1:]}.") from exc


def _check_caption(caption: str) -> None:
    if not caption:
        raise BadReference("The row has no caption.")
    try:
        _TEXT.validate_python(caption)
    except ValidationError as exc:
        words = exc.errors(include_url=False, include_input=False)[0]["msg"]
        raise BadReference(f"The caption cannot be weighed: {words}.") from exc


def _check_language(language: str | None) -> None:
    try:
        _LANGUAGE.validate_python(language)
    except ValidationError as exc:
        raise BadReference(f"The language is no BCP 47 tag: {str(language)[:40]!r}.") from exc


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False
