"""Redis as it is run for real: by TLS alone, or three Sentinels round a master and a replica."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from producer.redis_server import Address, RedisServer, server_binary
from tests.redis_users import ServerOfUsers

MASTER = "blue"
DOWN_AFTER_MS = 1_000


@dataclass(frozen=True)
class Certificates:
    """A private authority, a certificate of 127.0.0.1 and one of a client, with their keys."""

    folder: Path

    def query(self, client: bool = True) -> str:
        """What a URL says of them."""
        own = f"&ssl_certfile={self.folder}/client.pem&ssl_keyfile={self.folder}/client.key"
        return f"?ssl_cert_reqs=required&ssl_ca_certs={self.folder}/ca.pem" + (
            own if client else ""
        )


def certificates(folder: Path) -> Certificates:
    """Make them, for two days."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no TLS: needs the openssl command to make certificates")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    signed = ("-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key")
    names = ("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    for name, more in {"ca": (), "server": (*signed, *names), "client": signed}.items():
        subprocess.run(
            [openssl, "req", "-x509", *key, "-subj", f"/CN={name}", *more,
             "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
    return Certificates(folder)


def signed(folder: Path, name: str, by: str = "ca", of: str = "IP:127.0.0.1", days: int = 2) -> str:
    """One more certificate of such a folder, and its key, as one file."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={of}")
    made = folder / f"{name}.both"
    for command in (
        ("req", *key, *subject, "-keyout", f"{made}.key", "-out", f"{made}.csr"),
        ("x509", "-req", "-in", f"{made}.csr", "-CA", f"{folder}/{by}.pem", "-days", str(days),
         "-CAkey", f"{folder}/{by}.key", "-copy_extensions", "copy", "-out", f"{made}.crt"),
    ):  # fmt: skip
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    made.write_text("".join(Path(f"{made}.{one}").read_text() for one in ("key", "crt")))
    return str(made)


def knows_tls() -> bool:
    """Whether the server that tests run was built with TLS."""
    linked = subprocess.run(["ldd", server_binary()], capture_output=True, text=True, check=False)
    return "libssl" in linked.stdout


class TlsServer(RedisServer):
    """A server that speaks TLS alone, to clients with a certificate of its authority's."""

    def __init__(self, folder: Path, trusted: Certificates) -> None:
        super().__init__(folder)
        self._trusted = trusted
        address = self._address
        tls = _TlsAddress(address.port, address.password, trusted)
        self._address = tls
        self.url = tls.url
        at = trusted.folder
        self._config = {
            "port": "0",
            "tls-port": str(address.port),
            "tls-cert-file": f"{at}/server.pem",
            "tls-key-file": f"{at}/server.key",
            "tls-ca-cert-file": f"{at}/ca.pem",
            "tls-auth-clients": "yes",
        }


@dataclass(frozen=True)
class _TlsAddress(Address):
    trusted: Certificates

    @property
    def url(self) -> str:
        return f"rediss://:{self.password}@127.0.0.1:{self.port}/0{self.trusted.query()}"


@dataclass
class Family:
    """A master and its replica, of which three Sentinels know."""

    servers: list[ServerOfUsers]
    sentinels: list[Address]

    @property
    def url(self) -> str:
        return self.url_of("worker")

    def url_of(self, user: str) -> str:
        login = self.servers[0].login_of(user)
        first, *others = (f"127.0.0.1:{one.port}" for one in self.sentinels)
        asking = f"sentinel_password={self.sentinels[0].password}"
        return ";".join(
            [f"sentinel://{login}@{first}?{asking}", *(f"sentinel://{one}" for one in others)]
        )

    def master_port(self) -> int:
        """Whom the first Sentinel that answers names."""
        with self.sentinels[0].client() as asked:
            found: Any = asked.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return int(found[1])

    def client(self, server: ServerOfUsers) -> redis.Redis:
        return server._address.client()


@contextmanager
def family(folder: Path) -> Iterator[Family]:
    """Started, with users, in step and known to all; ended with the block."""
    with ExitStack() as stack:
        first, second = ServerOfUsers(folder / "0"), ServerOfUsers(folder / "1")
        for one in (first, second):
            one._config |= {"masteruser": "replica", "masterauth": f'"{one._words["replica"]}"'}
        second._config |= {"replicaof": f"127.0.0.1 {first._address.port}"}
        stack.enter_context(first)
        stack.enter_context(second)
        word = Address.fresh().password
        found = Family([first, second], [Address(Address.fresh().port, word) for _ in range(3)])
        until(lambda: _in_step(found), "the replica is not in step")
        for n, address in enumerate(found.sentinels):
            more = f"sentinel auth-user {MASTER} sentinel\n"
            word = f'"{first._words["sentinel"]}"'
            stack.enter_context(sentinel(folder / f"sentinel{n}", address, first, word, more=more))
        until(lambda: all(map(_knows_all, found.sentinels)), "the Sentinels do not know each other")
        yield found


@contextmanager
def sentinel(
    folder: Path,
    address: Address,
    master: RedisServer,
    password: str,
    quorum: int = 2,
    before: str = "",
    more: str = "",
) -> Iterator[None]:
    """One Sentinel that watches a master, by a password; with further lines of its settings."""
    folder.mkdir()
    conf = folder / "sentinel.conf"
    conf.write_text(
        f"bind 127.0.0.1\nport {address.port}\ndir {folder}\n"
        f"requirepass {address.password}\n{before}"
        f"sentinel monitor {MASTER} 127.0.0.1 {master._address.port} {quorum}\n"
        f"sentinel auth-pass {MASTER} {password}\n{more}"
        f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n"
        f"sentinel failover-timeout {MASTER} 10000\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([server_binary(), str(conf), "--sentinel"], stdout=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _in_step(found: Family) -> bool:
    with found.client(found.servers[1]) as replica:
        info: Any = replica.info("replication")
    return bool(info.get("master_link_status") == "up")


def _knows_all(address: Address) -> bool:
    try:
        with redis.Redis(
            port=address.port, password=address.password, decode_responses=True
        ) as asked:
            (one,) = asked.execute_command("SENTINEL", "MASTERS")
    except (redis.RedisError, ValueError):
        return False
    told = one if isinstance(one, dict) else dict(zip(one[::2], one[1::2], strict=True))
    told = {str(key).replace("_", "-"): value for key, value in told.items()}
    return int(told["num-other-sentinels"]) == 2 and int(told["num-slaves"]) == 1


def until(true: Any, otherwise: str, timeout_s: float = 60) -> None:
    """Return once `true()` is."""
    deadline_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline_s, otherwise
        time.sleep(0.05)
