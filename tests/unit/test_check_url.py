"""`captionq-worker check-url`: what it says of a URL, without fetching it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from worker import check_url
from worker.check_url import Judge
from worker.cli import cli
from worker.settings import WorkerSettings

NAMES = {
    "public.example": ["8.8.8.8", "2606:4700:4700::1111"],
    "xn--bcher-kva.example": ["8.8.8.8"],
    "private.example": ["10.0.0.1"],
    "mixed.example": ["8.8.8.8", "169.254.169.254"],
    "nat64.example": ["64:ff9b::8.8.8.8"],
    "local.example": ["127.0.0.1"],
}


def resolve(host: str, port: int) -> list[str]:
    if host not in NAMES:
        raise socket.gaierror(socket.EAI_NONAME, "no such host")
    return NAMES[host]


def judge(monkeypatch: pytest.MonkeyPatch, **environment: object) -> Judge:
    for name, value in environment.items():
        monkeypatch.setenv(f"CAPTIONQ_{name}", str(value))
    return Judge(WorkerSettings(), resolve)


@pytest.mark.parametrize(
    ("url", "code", "addresses"),
    [
        ("https://public.example/a.png?q#f", None, NAMES["public.example"]),
        ("HTTP://PUBLIC.example.:80", None, NAMES["public.example"]),
        ("https://bücher.example/ü", None, ["8.8.8.8"]),
        ("https://nat64.example/", None, NAMES["nat64.example"]),
        ("http://8.8.8.8/", None, ["8.8.8.8"]),
        ("http://[2606:4700:4700::1111]:443/", None, ["2606:4700:4700::1111"]),
        ("http://private.example/", "url_blocked", ["10.0.0.1"]),
        ("http://mixed.example/", "url_blocked", NAMES["mixed.example"]),
        ("http://127.0.0.1/", "url_blocked", ["127.0.0.1"]),
        ("http://127.0.0.1.:80/", "url_blocked", ["127.0.0.1"]),
        ("http://[::ffff:127.0.0.1]/", "url_blocked", ["::ffff:7f00:1"]),
        ("http://no.example/", "dns_failed", []),
        ("http://2130706433/", "url_invalid", []),
        ("http://public.example:8080/", "url_invalid", []),
        ("http://user:pw@public.example/", "url_invalid", []),
        ("http://public.example/" + "a" * 2_048, "url_invalid", []),
        ("s3://photos/cat.jpg", None, []),
        ("s3://photos/cat.jpg?versionId=1", None, []),
        ("s3://private/cat.jpg", "bucket_not_allowed", []),
        ("s3://photos/../private/cat.jpg", "url_invalid", []),
        ("S3://photos/cat.jpg", "url_invalid", []),
        ("file:///etc/passwd", "file_not_allowed", []),
        ("file://host/etc/passwd", "url_invalid", []),
        ("file:/etc/passwd", "url_invalid", []),
        ("ftp://public.example/", "url_invalid", []),
        ("data:image/png;base64,AAAA", "url_invalid", []),
        ("public.example", "url_invalid", []),
        ("-x", "url_invalid", []),
        ("", "url_invalid", []),
        ("\udcff\udcfe", "url_invalid", []),
        ("http://public.example/\udcff", "url_invalid", []),
        ("file:///\udcff", "url_invalid", []),
        ("s3://photos/\udcff", "url_invalid", []),
    ],
)
def test_given_a_url_when_judged_then_its_code_and_its_addresses_are_told(
    monkeypatch: pytest.MonkeyPatch, url: str, code: str | None, addresses: list[str]
) -> None:
    verdict = judge(monkeypatch, S3_ALLOW="photos")(url)
    assert verdict == {"url": url, "allowed": code is None, "code": code, "addresses": addresses}


@pytest.mark.parametrize(
    ("allow", "url", "code"),
    [
        ("127.0.0.1/32:8080", "http://local.example:8080/", None),
        ("127.0.0.1/32:8080", "http://127.0.0.1:8080/", None),
        ("127.0.0.1/32:8080", "http://local.example/", "url_blocked"),
        ("127.0.0.1/32:8080", "http://public.example:8080/", "url_blocked"),
        ("127.0.0.1/32:8080", "http://local.example:8081/", "url_invalid"),
        ("10.0.0.0/8:*", "http://private.example:9/", None),
    ],
)
def test_given_exceptions_when_judged_then_they_count(
    monkeypatch: pytest.MonkeyPatch, allow: str, url: str, code: str | None
) -> None:
    assert judge(monkeypatch, FETCH_ALLOW=allow)(url)["code"] == code


def test_given_a_folder_when_files_are_judged_then_only_those_under_it_pass_there_or_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").symlink_to(tmp_path)
    judging = judge(monkeypatch, FILE_ROOT=tmp_path / "in")
    assert judging(f"file://{tmp_path}/in/none.png")["allowed"]
    assert judging(f"file://{tmp_path}/in/../in/a%20b.png")["allowed"]
    assert judging(f"file://{tmp_path}/none.png")["code"] == "file_not_allowed"
    assert judging(f"file://{tmp_path}/in/out/none.png")["code"] == "file_not_allowed"


def test_given_a_proxy_when_a_name_is_unknown_here_then_the_proxy_may_know_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judging = judge(monkeypatch, FETCH_PROXY="http://127.0.0.1:9")
    assert judging("http://no.example/")["allowed"]
    assert judging("http://private.example/")["code"] == "url_blocked"


ANY_URL = st.text() | st.builds(
    "{}://{}".format,
    st.sampled_from(["http", "https", "s3", "file", "File", "ftp"]),
    st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(url=ANY_URL)
def test_given_any_text_when_judged_then_it_is_a_line_of_ascii_json(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    verdict = judge(monkeypatch)(url)
    line = json.dumps(verdict)
    assert line.isascii()
    assert json.loads(line) == verdict


def test_given_many_urls_when_the_command_runs_then_each_has_its_line_and_it_exits_0(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check_url, "Judge", lambda settings: Judge(settings, resolve))
    urls = ["https://public.example/", "--not-an-option", "-x", "", "http://no.example/"]
    result = CliRunner().invoke(cli, ["check-url", *urls])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert [row["url"] for row in rows] == urls
    assert [row["allowed"] for row in rows] == [True, False, False, False, False]
    assert list(rows[0]) == ["url", "allowed", "code", "addresses"]


@pytest.mark.parametrize("url", ["https://example.com/", "s3://photos/a", "file:///a"])
def test_given_any_url_when_judged_then_nothing_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("8.8.8.8", 443))])
    assert Judge(WorkerSettings())(url)["code"] in (None, "file_not_allowed")


def test_given_a_wrong_setting_when_asked_then_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONQ_FETCH_ALLOW", "everything")
    result = CliRunner().invoke(cli, ["check-url", "http://a.example/"])
    assert result.exit_code == 78
    assert "FETCH_ALLOW" in result.stderr


# In a process of its own: no library of the device's is loaded, odd bytes are an argument as well,
# and a lookup that hangs does not keep the process.
PROCESS = """
import socket, sys, time
socket.getaddrinfo = lambda *_, **__: time.sleep(60)
sys.argv[0] = "captionq-worker"
from worker.__main__ import main
try:
    main()
finally:
    print(sorted({"torch", "transformers", "boto3", "PIL"} & set(sys.modules)), file=sys.stderr)
"""


def test_given_a_process_when_a_lookup_hangs_then_it_ends_soon_and_has_loaded_little() -> None:
    done: Any = subprocess.run(
        [sys.executable, "-c", PROCESS, "check-url", b"http://a.example/", b"\xff\xfe"],
        capture_output=True,
        timeout=20,
        env=os.environ | {"PYTHONUTF8": "0", "LC_ALL": "C"},
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [row["code"] for row in rows] == ["dns_failed", "url_invalid"]
    assert done.stderr.strip() == b"[]"


def test_given_help_when_asked_for_then_it_teaches_codes_and_settings() -> None:
    result = CliRunner().invoke(cli, ["check-url", "--help"])
    for word in ("url_blocked", "CAPTIONQ_FETCH_ALLOW", "Nothing is fetched", "Example"):
        assert word in result.stdout
