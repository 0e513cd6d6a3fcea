"""The file of a form: whatever the pieces that the body comes in, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.gateway.one_file import MAX_PARTS, FormFault, OneFile

TYPE = "multipart/form-data; boundary=b"
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="../a.jpg"\r\n\r\n%b\r\n'
FIELD = b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
END = b"--b--\r\n"


def taken(body: bytes, pieces: int = 1 << 30, content_type: str = TYPE) -> bytes:
    form = OneFile(content_type)
    found = b"".join(
        part
        for start in range(0, len(body), pieces)
        for part in form.feed(body[start : start + pieces])
    )
    form.close()
    return found


@given(data=st.binary(max_size=300), pieces=st.integers(1, 80))
def test_given_any_file_in_any_pieces_then_its_bytes_come_out(data: bytes, pieces: int) -> None:
    assert taken(FIELD + FILE % data + FIELD + END, pieces) == data


@pytest.mark.parametrize(
    "data", [b"\r\n--b", b"\r\n--b-", b"--b--\r\n", b"\r\n\r\n", b"\r\n--c\r\n"]
)
def test_given_a_file_that_looks_like_its_boundary_then_no_byte_is_lost(data: bytes) -> None:
    assert (
        taken(
            FILE.replace(b"--b", b"--bound") % data + b"--bound--\r\n",
            1,
            "multipart/form-data; boundary=bound",
        )
        == data
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (FILE % b"a" + FILE % b"b" + END, "more than one file"),
        (FIELD + END, "no file"),
        (END, "no file"),
        (FILE % b"a", "closing boundary"),
        ((FILE % b"a")[:-3], "closing boundary"),
        (b"", "closing boundary"),
        (b"{}", "not a form"),
        (FIELD * (MAX_PARTS + 1) + END, "parts"),
        (b"--b\r\n" + b"X: y\r\n" * 1000 + b"\r\n" + END, "not a form"),
        (b"--b\r\nX: " + b"y" * 100_000 + b"\r\n\r\n" + END, "not a form"),
    ],
)
def test_given_what_is_no_form_with_one_file_then_it_is_said_why(body: bytes, said: str) -> None:
    for pieces in (1 << 30, 7):
        with pytest.raises(FormFault, match=said):
            taken(body, pieces)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "b" * 1000,
    ],
)
def test_given_no_boundary_or_a_very_long_one_then_it_is_said(content_type: str) -> None:
    with pytest.raises(FormFault, match="boundary"):
        OneFile(content_type)


def test_given_a_name_in_another_alphabet_then_the_part_is_a_file_all_the_same() -> None:
    disposition = 'Content-Disposition: form-data; name="f"; filename="\u20ac \u732b.jpg"'.encode()
    assert taken(b"--b\r\n" + disposition + b"\r\n\r\nx\r\n" + END) == b"x"
