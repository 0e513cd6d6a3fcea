"""The one file of a multipart/form-data body, taken out while the body comes (RFC 7578)."""

import logging

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

__all__ = ["FormFault", "OneFile"]

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each odd byte sent

MAX_PARTS = 16
"""Of a form: its file, and fields that are read over."""


class FormFault(ValueError):  # noqa: N818 - that is what it is
    """The body is no form with one file in it; the text says why, to whoever sent it."""


class OneFile:
    """Reads a form; keeps nothing of it.

    Args:
        content_type: of the request, with its boundary.

    Raises:
        FormFault: from every call.
    """

    def __init__(self, content_type: str) -> None:
        _, options = parse_options_header(content_type)
        self._parts = 0
        self._files = 0
        self._inside = False  # a part that is the file
        self._ended = False
        self._name = b""
        self._value = b""
        self._found: list[bytes] = []
        try:
            self._parser = MultipartParser(
                options.get(b"boundary") or b"",
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_ends,
                    "on_part_data": self._data,
                    "on_part_end": self._part_ends,
                    "on_end": self._form_ends,
                },
            )
        except FormParserError as exc:
            raise FormFault(f"The boundary of the form cannot be used: {exc}.") from exc
        if not options.get(b"boundary"):
            raise FormFault("The Content-Type names no boundary of the form.")

    def feed(self, data: bytes) -> list[bytes]:
        """The bytes of the file that a piece of the body has."""
        self._found = []
        try:
            self._parser.write(data)
        except FormParserError as exc:
            raise FormFault("The body is not a form as its Content-Type says.") from exc
        return self._found

    def close(self) -> None:
        """The body has ended: check that the form has, and that there was a file."""
        if not self._ended:
            raise FormFault("The form ends before its closing boundary.")
        if not self._files:
            raise FormFault("The form has no file: send one part with a filename.")

    def _part_begins(self) -> None:
        self._parts += 1
        self._inside = False
        self._name = self._value = b""
        if self._parts > MAX_PARTS:
            raise FormFault(f"The form has more than {MAX_PARTS} parts.")

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            if b"filename" in options:
                self._inside = True
                self._files += 1
        self._name = self._value = b""
        if self._files > 1:
            raise FormFault("The form has more than one file: send each in a request of its own.")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._found.append(data[start:end])

    def _part_ends(self) -> None:
        self._inside = False

    def _form_ends(self) -> None:
        self._ended = True
