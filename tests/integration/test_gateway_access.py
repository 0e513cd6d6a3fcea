"""Who may ask for what: API keys as their holders, and an operator, see them."""

import base64
import json
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from producer import cli
from producer.embedded import RedisServer
from producer.gateway import keys
from tests.gateway_process import JOB, GatewayProcess, new_key


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("access") / "keys.json"
    keys.write(path, ())
    return path


@pytest.fixture(scope="module")
def gateway(_redis_server: RedisServer, keys_file: Path) -> Iterator[GatewayProcess]:
    log = keys_file.with_name("log")
    with GatewayProcess(_redis_server.url, log, "--keys", str(keys_file)) as process:
        yield process


@pytest.fixture(scope="module")
def keyless(_redis_server: RedisServer, keys_file: Path) -> Iterator[GatewayProcess]:
    with GatewayProcess(_redis_server.url, keys_file.with_name("keyless")) as process:
        yield process


def status(gateway: GatewayProcess, method: str, path: str, key: str | None = None) -> int:
    with gateway.client(key) as client:
        return client.request(method, path, json=JOB if method == "POST" else None).status_code


def soon(answer: Callable[[], int], expected: int) -> None:
    deadline_s = time.monotonic() + 10
    while answer() != expected:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer",
        "Bearer nonsense",
        "Bearer cq_nobody_" + "0" * 64,
        "Bearer cq_shop_" + "0" * 64,
        "Basic !!!",
        "Basic " + base64.b64encode(b"cq_shop").decode(),
        "Digest username=shop",
    ],
)
def test_without_a_valid_key_nothing_is_answered_but_health(
    gateway: GatewayProcess, authorization: str | None
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    with httpx.Client(base_url=gateway.url, headers=headers) as client:
        refused = client.post("/v1/jobs", json=JOB)
        health = client.get("/healthz")

    assert (refused.status_code, refused.json()["code"]) == (401, "key_invalid")
    assert refused.headers["www-authenticate"].startswith("Bearer ")
    assert health.status_code == 200


def test_a_new_key_is_let_in_within_seconds_and_a_removed_one_no_more(
    gateway: GatewayProcess, keys_file: Path
) -> None:
    key, entry = new_key(keys_file, "late")

    soon(lambda: status(gateway, "GET", "/v1/jobs", key), 200)
    keys.write(keys_file, [one for one in keys.read(keys_file).entries if one != entry])
    soon(lambda: status(gateway, "GET", "/v1/jobs", key), 401)


def test_a_keys_file_that_is_damaged_changes_nothing(
    gateway: GatewayProcess, keys_file: Path
) -> None:
    key, _ = new_key(keys_file, "steady")
    soon(lambda: status(gateway, "GET", "/v1/jobs", key), 200)
    whole = keys_file.read_text()

    keys_file.write_text("{")
    time.sleep(2)

    assert status(gateway, "GET", "/v1/jobs", key) == 200
    assert "The API keys stay as they were" in gateway.log.read_text()
    keys_file.write_text(whole)


def test_a_key_does_what_its_scopes_say_alone(gateway: GatewayProcess, keys_file: Path) -> None:
    submitting, _ = new_key(keys_file, "submitting", "submit")
    reading, _ = new_key(keys_file, "reading", "read")
    soon(lambda: status(gateway, "GET", "/v1/jobs", reading), 200)

    assert status(gateway, "POST", "/v1/jobs", submitting) == 202
    assert status(gateway, "GET", "/v1/jobs", submitting) == 403
    assert status(gateway, "POST", "/v1/jobs", reading) == 403
    assert status(gateway, "DELETE", "/v1/jobs/mine", reading) == 403
    assert status(gateway, "GET", "/v1/service", submitting) == 200


def test_a_key_may_come_as_the_password_of_http_basic(
    gateway: GatewayProcess, keys_file: Path
) -> None:
    key, _ = new_key(keys_file, "basic")
    soon(lambda: status(gateway, "GET", "/v1/jobs", key), 200)

    with httpx.Client(base_url=gateway.url, auth=("whoever", key)) as client:
        assert client.get("/v1/jobs").status_code == 200


def test_one_name_may_have_an_old_and_a_new_key_for_the_same_jobs(
    gateway: GatewayProcess, keys_file: Path
) -> None:
    old, _ = new_key(keys_file, "changing")
    new, _ = new_key(keys_file, "changing")
    soon(lambda: status(gateway, "GET", "/v1/jobs", new), 200)

    with gateway.client(old) as client:
        where = client.post("/v1/jobs", json=JOB).headers["location"]

    assert status(gateway, "GET", where, new) == 200


def test_a_key_that_asks_too_often_is_told_when_to_come_again(
    gateway: GatewayProcess, keys_file: Path
) -> None:
    key, _ = new_key(keys_file, "hasty", rate=2)
    soon(lambda: status(gateway, "GET", "/v1/jobs", key), 200)
    time.sleep(1.1)

    with gateway.client(key) as client:
        answers = [client.get("/v1/jobs") for _ in range(3)]
        time.sleep(int(answers[2].headers["retry-after"]))
        later = client.get("/v1/jobs")

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"key";q=2;w=1'
    assert answers[0].headers["ratelimit"].startswith('"key";r=1')
    assert answers[2].headers["ratelimit"] == '"key";r=0;t=1'
    assert answers[2].json()["code"] == "rate_limited"
    assert later.status_code == 200


def test_each_job_of_a_batch_counts(gateway: GatewayProcess, keys_file: Path) -> None:
    key, _ = new_key(keys_file, "bulky", rate=2)
    soon(lambda: status(gateway, "GET", "/v1/jobs", key), 200)
    time.sleep(1.1)

    with gateway.client(key) as client:
        batch = client.post("/v1/jobs:batch", json={"jobs": [JOB] * 20})
        after = client.get("/v1/jobs")

    assert (batch.status_code, after.status_code) == (202, 429)
    assert int(after.headers["retry-after"]) > 5


def test_without_keys_other_machines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Without API keys the gateway serves this machine"):
        GatewayProcess("redis://127.0.0.1:1", tmp_path / "log", "--host", "0.0.0.0")


def test_given_the_flag_other_machines_are_served_without_keys(tmp_path: Path) -> None:
    words = ("--host", "0.0.0.0", "--without-keys")
    with GatewayProcess("redis://127.0.0.1:1", tmp_path / "log", *words) as process:
        assert httpx.get(f"http://127.0.0.1:{process.port}/healthz").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("localhost.evil.example:8000", 421),
        ("", 421),
    ],
)
def test_without_keys_a_page_of_another_site_does_not_reach_it_by_a_name_of_its_own(
    keyless: GatewayProcess, host: str, status: int
) -> None:
    assert httpx.get(f"{keyless.url}/v1/jobs", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/jobs"),
        ("POST", "/v1/jobs:batch"),
        ("POST", "/v1/uploads"),
        ("POST", "/hooks/s3"),
        ("DELETE", "/v1/jobs/mine"),
    ],
)
@pytest.mark.parametrize(
    "said",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_nothing_is_changed_for_a_page_of_another_site(
    keyless: GatewayProcess, method: str, path: str, said: dict[str, str]
) -> None:
    """Its forms reach whatever its visitor reaches, with any body, and are not asked first."""
    body = {"Content-Type": "text/plain"}
    refused = httpx.request(method, f"{keyless.url}{path}", content=b"{}", headers=body | said)

    assert (refused.status_code, refused.json()["code"]) == (403, "origin_refused")


@pytest.mark.parametrize(
    "said",
    [
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy.example"},
        {"Origin": "http://localhost:8000", "Host": "localhost:8000"},
    ],
)
def test_the_gateways_own_page_may_change_things(
    keyless: GatewayProcess, said: dict[str, str]
) -> None:
    answered = httpx.post(f"{keyless.url}/v1/jobs", content=b"{}", headers=said)
    assert answered.status_code == 415


def test_browsers_scripts_are_not_asked_for_a_password(gateway: GatewayProcess) -> None:
    refused = httpx.get(f"{gateway.url}/v1/jobs", headers={"Sec-Fetch-Mode": "cors"})

    assert refused.headers["www-authenticate"] == 'Bearer realm="captionq"'


def test_a_keys_file_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    new_key(tmp_path / "keys.json", "shop")
    (tmp_path / "keys.json").chmod(0o666)

    with pytest.raises(RuntimeError, match="chmod 600"):
        GatewayProcess("redis://127.0.0.1:1", tmp_path / "log", "--keys", f"{tmp_path}/keys.json")


@pytest.fixture
def keys_command(tmp_path: Path) -> Callable[..., Result]:
    environment = {"CAPTIONQ_API_KEYS": str(tmp_path / "keys.json")}
    return lambda *words: CliRunner().invoke(cli.app, ["keys", *words], env=environment)


def test_a_key_is_printed_once_and_kept_by_its_hash(
    keys_command: Callable[..., Result], tmp_path: Path
) -> None:
    made = keys_command("new", "shop", "--scope", "read", "--scope", "submit", "--rate", "5")

    key = made.stdout.strip()
    path = tmp_path / "keys.json"
    entry = keys.read(path).find(key)
    assert made.exit_code == 0
    assert entry is not None
    assert (entry.id, entry.scopes, entry.rate) == ("shop", ("submit", "read"), 5)
    assert key.rpartition("_")[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_are_listed_and_removed_by_name_or_one_of_them(
    keys_command: Callable[..., Result],
) -> None:
    for name in ("shop", "shop", "other"):
        keys_command("new", name)
    listed = [json.loads(line) for line in keys_command("list", "--json").stdout.splitlines()]

    one = keys_command("remove", "shop", "--only", listed[0]["fingerprint"])
    rest = keys_command("remove", "shop")
    again = keys_command("remove", "shop")

    assert [entry["id"] for entry in listed] == ["shop", "shop", "other"]
    assert one.stdout == rest.stdout == "removed: 1\n"
    assert (again.exit_code, "There is no key of shop" in again.stderr) == (2, True)
    assert "other" in keys_command("list").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("new", "no name!"), "is no name"),
        (("new", "shop", "--scope", "everything"), "scopes are submit, read"),
        (("new", "shop", "--rate", "inf"), "--rate"),
        (("new", "shop", "--rate", "0"), "--rate"),
        (("list",), "No such file"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(
    keys_command: Callable[..., Result], words: tuple[str, ...], said: str
) -> None:
    result = keys_command(*words)

    assert result.exit_code == 2
    assert said in result.stderr
