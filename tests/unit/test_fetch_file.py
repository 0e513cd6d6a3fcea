"""file:// stays inside its folder, and never waits for what is not a file."""

import errno
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import ErrorCode, Fault
from worker.fetch import Fetcher
from worker.fetch.file import FileSource, parse_file_uri

BODY = b"\x89PNG"
SOON = 5.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with all kinds of things in it, beside a secret."""
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "images-too").mkdir()
    (tmp_path / "images-too" / "secret").write_bytes(b"secret")
    for name in ("cat.png", "sub/a b#c?.png", "ü.png", "empty.png"):
        (root / name).write_bytes(b"" if name == "empty.png" else BODY)
    (root / "inside").symlink_to("sub")
    (root / "outside").symlink_to("..")
    (root / "secret-link").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(root / "socket"))
    listener.close()
    return root


def outcome(call: Callable[..., Any], *args: object) -> Any:
    """What a call returns, or the code it fails with."""
    try:
        return call(*args)
    except Fault as fault:
        return fault.code


def fetch(root: Path | None, uri: str, max_bytes: int = 100) -> Any:
    return outcome(FileSource(root, max_bytes).fetch, uri, time.monotonic() + SOON)


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("/cat.png", BODY),
        ("/sub/a%20b%23c%3F.png", BODY),
        ("/%C3%BC.png", BODY),
        ("/ü.png", BODY),
        ("/sub/../cat.png", BODY),
        ("/./sub/%2e%2e/cat.png", BODY),
        ("/inside/a%20b%23c%3F.png", BODY),
        ("/empty.png", b""),
        ("/missing.png", ErrorCode.FILE_NOT_FOUND),
        ("/sub/missing/missing.png", ErrorCode.FILE_NOT_FOUND),
        ("/" + "a" * 300, ErrorCode.FILE_NOT_FOUND),
        ("", ErrorCode.FILE_NOT_ALLOWED),
        ("/sub", ErrorCode.FILE_NOT_ALLOWED),
        ("/fifo", ErrorCode.FILE_NOT_ALLOWED),
        ("/socket", ErrorCode.FILE_NOT_ALLOWED),
        ("/loop", ErrorCode.FILE_NOT_ALLOWED),
        ("/cat.png/x", ErrorCode.FILE_NOT_ALLOWED),
        ("/../secret", ErrorCode.FILE_NOT_ALLOWED),
        ("/%2e%2e/secret", ErrorCode.FILE_NOT_ALLOWED),
        ("/..%2fsecret", ErrorCode.FILE_NOT_ALLOWED),
        ("/../no-such-secret", ErrorCode.FILE_NOT_ALLOWED),
        ("-too/secret", ErrorCode.FILE_NOT_ALLOWED),
        ("/secret-link", ErrorCode.FILE_NOT_ALLOWED),
        ("/outside/secret", ErrorCode.FILE_NOT_ALLOWED),
        ("/cat.png?x", ErrorCode.URL_INVALID),
        ("/cat.png#x", ErrorCode.URL_INVALID),
        ("/cat.png%00.jpg", ErrorCode.URL_INVALID),
    ],
)
def test_given_a_path_when_fetched_then_only_regular_files_inside_are_read(
    root: Path, path: str, outcome: bytes | ErrorCode
) -> None:
    assert fetch(root, f"file://{root}{path}") == outcome


@pytest.mark.parametrize("uri", ["file:///dev/zero", "file:///dev/stdin", "file:///proc/self/mem"])
def test_given_a_device_when_even_the_whole_disk_is_allowed_then_it_is_refused_at_once(
    uri: str,
) -> None:
    assert fetch(Path("/"), uri, 10) in (ErrorCode.FILE_NOT_ALLOWED, ErrorCode.FILE_NOT_FOUND)


def test_given_a_file_without_a_size_when_it_is_long_then_its_bytes_are_counted() -> None:
    assert fetch(Path("/proc"), "file:///proc/version", 10) is ErrorCode.BODY_TOO_LARGE


@pytest.mark.parametrize(
    "uri", ["file://host/cat.png", "file:cat.png", "file://cat.png", "http:///cat.png", "/cat.png"]
)
def test_given_another_form_of_uri_when_fetched_then_it_is_invalid(root: Path, uri: str) -> None:
    assert fetch(root, uri) is ErrorCode.URL_INVALID


@pytest.mark.parametrize("prefix", ["file://", "FILE://", "file://localhost"])
def test_given_any_spelling_of_the_local_host_when_fetched_then_it_is_read(
    root: Path, prefix: str
) -> None:
    assert fetch(root, f"{prefix}{root}/cat.png") == BODY


def test_given_a_link_to_the_folder_when_files_are_named_through_it_then_they_are_read(
    root: Path,
) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    assert fetch(link, f"file://{link}/cat.png") == BODY
    assert fetch(link, f"file://{root}/cat.png") == BODY


def test_given_a_folder_swapped_for_a_link_after_resolving_then_it_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FileSource(root)
    resolve = os.path.realpath

    def resolve_then_swap(path: str) -> str:
        resolved = str(resolve(path))
        (root / "sub").rename(root / "was-sub")
        (root / "sub").symlink_to("..")
        return resolved

    monkeypatch.setattr(os.path, "realpath", resolve_then_swap)
    uri = f"file://{root}/sub/secret"
    assert outcome(source.fetch, uri, time.monotonic() + SOON) is ErrorCode.FILE_NOT_ALLOWED


@pytest.mark.parametrize(("max_bytes", "outcome"), [(4, BODY), (3, ErrorCode.BODY_TOO_LARGE)])
def test_given_a_cap_when_a_file_is_larger_then_it_is_refused(
    root: Path, max_bytes: int, outcome: bytes | ErrorCode
) -> None:
    assert fetch(root, f"file://{root}/cat.png", max_bytes) == outcome


def test_given_no_folder_when_fetched_then_every_file_is_refused(root: Path) -> None:
    assert fetch(None, f"file://{root}/cat.png") is ErrorCode.FILE_NOT_ALLOWED


def test_given_a_deadline_that_passed_when_fetched_then_it_is_a_timeout(root: Path) -> None:
    with pytest.raises(Fault) as failure:
        FileSource(root).fetch(f"file://{root}/cat.png", time.monotonic() - 1)
    assert failure.value.code is ErrorCode.FETCH_TIMEOUT
    assert failure.value.transient


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_given_a_file_the_worker_may_not_read_when_fetched_then_it_is_refused(root: Path) -> None:
    (root / "cat.png").chmod(0)
    assert fetch(root, f"file://{root}/cat.png") is ErrorCode.FILE_NOT_ALLOWED


def test_given_many_fetches_when_done_then_no_descriptor_is_left_open(root: Path) -> None:
    # Others of this process come and go meanwhile, with what earlier tests left to be collected.
    def open_under_root() -> list[str]:
        targets = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed
                targets.append(str(descriptor.readlink()))
        return [target for target in targets if target.startswith(str(root))]

    for path in ("/cat.png", "/sub", "/fifo", "/missing", "/cat.png/x", "/sub/a%20b%23c%3F.png"):
        fetch(root, f"file://{root}{path}")
    assert open_under_root() == []
    with (root / "cat.png").open("rb"):
        assert open_under_root() == [str(root / "cat.png")]


@given(st.text() | st.text().map("file:///{}".format))
def test_given_any_text_when_parsed_then_it_is_a_path_or_a_fault(uri: str) -> None:
    path = outcome(parse_file_uri, uri)
    assert path is ErrorCode.URL_INVALID or (path[0] == "/" and "\0" not in path)


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("http://a.example/", ErrorCode.URL_BLOCKED),
        ("HTTPS://a.example/", ErrorCode.URL_BLOCKED),
        ("s3://photos/a", ErrorCode.BUCKET_NOT_ALLOWED),
        ("file:///a", ErrorCode.FILE_NOT_ALLOWED),
        ("ftp://a.example/", ErrorCode.URL_INVALID),
        ("cat.png", ErrorCode.URL_INVALID),
        ("", ErrorCode.URL_INVALID),
    ],
)
def test_given_a_store_that_is_not_configured_when_its_scheme_comes_then_it_is_refused(
    uri: str, code: ErrorCode
) -> None:
    with pytest.raises(Fault) as failure:
        Fetcher().fetch(uri, time.monotonic() + SOON)
    assert failure.value.code is code


def test_given_stores_when_an_uri_comes_then_its_scheme_picks_one_and_close_closes_each_once() -> (
    None
):
    class Store:
        def __init__(self, name: bytes) -> None:
            self.name = name
            self.closed = 0

        def fetch(self, uri: str, deadline: float) -> bytes:
            return self.name

        def close(self) -> None:
            self.closed += 1

    http, s3, file = Store(b"http"), Store(b"s3"), Store(b"file")
    fetcher = Fetcher(http=http, s3=s3, file=file)
    uris = ["http://a", "HTTPS://a", "s3://a/b", "file:///a"]
    assert [fetcher.fetch(uri, 0) for uri in uris] == [b"http", b"http", b"s3", b"file"]
    fetcher.close()
    assert (http.closed, s3.closed, file.closed) == (1, 1, 1)


def test_given_no_descriptor_left_when_fetched_then_it_may_be_tried_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    source = FileSource(root)
    monkeypatch.setattr(os, "open", none_left)
    uri = f"file://{root}/cat.png"
    assert outcome(source.fetch, uri, time.monotonic() + SOON) is ErrorCode.WORKER_OVERLOADED
