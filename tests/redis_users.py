"""A Redis that knows the users of docker/redis/users.acl, and nobody else."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from producer.redis_server import Address, RedisServer, server_binary

SCRIPT = Path(__file__).parents[1] / "docker/redis/users.sh"
USERS = (
    "producer", "gateway", "worker", "flower", "scaler", "replica", "sentinel", "operator"
)  # fmt: skip


def rendered(passwords: dict[str, str]) -> str:
    """What docker/redis/users.sh makes of the file, with these passwords by user."""
    given = {f"REDIS_{user.upper()}_PASSWORD": word for user, word in passwords.items()}
    made = subprocess.run(
        ["sh", str(SCRIPT)], env={"PATH": os.environ["PATH"], **given},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return made.stdout


def needs_users() -> None:
    """Skip the test where this machine's Redis is too old for such rules."""
    said = subprocess.run([server_binary(), "--version"], capture_output=True, text=True)
    found = re.search(r"v=(\d+)", said.stdout)
    if found is None or int(found[1]) < 7:
        pytest.skip("no users: this redis-server is older than 7.0; apt-get install redis-server")


class ServerOfUsers(RedisServer):
    """Beside the users that are to be tried, `keeper`, who starts and looks after it."""

    def __init__(self, folder: Path) -> None:
        needs_users()
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        words = {user: f"{user}'s word" for user in USERS}
        keeper = f"user keeper on >{self._address.password} ~* &* +@all\n"
        (folder / "users").write_text(rendered(words) + keeper)
        self._words = words
        self._config = {"aclfile": str(folder / "users")}
        self._address = _Kept(self._address.port, self._address.password)
        self.url = self.url_of("worker")

    def url_of(self, user: str) -> str:
        """What a program of this user is given."""
        return f"redis://{self.login_of(user)}@127.0.0.1:{self._address.port}/0"

    def login_of(self, user: str) -> str:
        """User and password, as URLs have them."""
        return f"{user}:{quote(self._words[user])}"

    def denials(self) -> list[str]:
        """Who was refused what, the latest first."""
        with self._address.client() as keeper:
            log: Any = keeper.acl_log()
        return [
            f"{one['username']}: {one['reason']} {one['object']} ({one['context']})" for one in log
        ]

    def refuses(self, user: str, *command: Any) -> bool:
        """Whether this user may not."""
        with redis.Redis.from_url(self.url_of(user)) as client:
            try:
                client.execute_command(*command)
            except redis.exceptions.NoPermissionError:
                return True
            return False


class _Kept(Address):
    @property
    def url(self) -> str:
        return f"redis://keeper:{self.password}@127.0.0.1:{self.port}/0"

    def config(self, folder: Path, **more: str) -> str:
        lines = super().config(folder, **more).splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("requirepass"))
