"""What docs/operations.md needs of systemctl(1), where no systemd runs: see tests/newcomer.py.

daemon-reload, enable [--now], start, stop, restart, is-active. A unit's processes are started as
the unit says: its commands, its user and groups, its environment and folders. What confines them
(ProtectSystem= and the like) is systemd's own and not done here; nothing that ends is started
again. Outputs go to /var/log/units. The standard library alone.
"""

import os
import pwd
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

LINKS = Path("/etc/systemd/system")
UNITS = (LINKS, Path("/lib/systemd/system"))
RUNNING = Path("/run/units")
LOGS = Path("/var/log/units")
FOLDERS = {
    "StateDirectory": "/var/lib",
    "RuntimeDirectory": "/run",
    "CacheDirectory": "/var/cache",
    "LogsDirectory": "/var/log",
}
BASIC = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class Unit:
    """One unit file, read, with what its drop-ins add.

    Raises:
        SystemExit: there is none of that name.
    """

    def __init__(self, name: str, folders: Sequence[Path] = ()) -> None:
        self.name = name if re.search(r"\.(service|target)$", name) else f"{name}.service"
        stem, _, kind = self.name.rpartition(".")
        self.prefix, at, self.instance = stem.partition("@")
        template = f"{self.prefix}{at}.{kind}"
        folders = folders or UNITS
        files = [folder / wanted for wanted in (self.name, template) for folder in folders]
        file = next((file for file in files if file.exists()), None)
        if file is None:
            sys.exit(f"Unit {self.name} not found.")
        self.file = file
        self.said: dict[str, list[str]] = defaultdict(list)
        for part in (file, *sorted(folders[0].glob(f"{self.name}.d/*.conf"))):
            for line in part.read_text().replace("\\\n", " ").splitlines():
                key, equals, value = line.partition("=")
                if equals and not key.startswith(("#", ";")):
                    self._say(key.strip(), self._specified(value.strip()))

    def _say(self, key: str, value: str) -> None:
        if value:
            self.said[key].append(value)
        else:  # as systemd has it, nothing takes back what was said before
            self.said[key].clear()

    def _specified(self, text: str) -> str:
        known = {"i": self.instance, "I": self.instance, "p": self.prefix, "n": self.name, "%": "%"}
        known |= {"t": "/run", "S": "/var/lib", "L": "/var/log", "C": "/var/cache"}
        return re.sub(r"%(.)", lambda found: known[found[1]], text)

    def words(self, key: str) -> list[str]:
        """All that a key lists."""
        return [word for value in self.said[key] for word in shlex.split(value)]

    def one(self, key: str) -> str:
        """What a key says last, or nothing."""
        return self.said[key][-1] if self.said[key] else ""

    @property
    def stop_s(self) -> float:
        """How long it gets to end, in seconds."""
        return float(self.one("TimeoutStopSec").rstrip("s") or 90)

    def environment(self) -> dict[str, str]:
        """What its processes see.

        Raises:
            FileNotFoundError: an EnvironmentFile that may not be missing is.
        """
        found = dict(BASIC)
        if user := self.one("User"):
            found |= {"USER": user, "HOME": pwd.getpwnam(user).pw_dir}
        found |= dict(word.split("=", 1) for word in self.words("Environment"))
        for name in self.said["EnvironmentFile"]:
            file = Path(name.removeprefix("-"))
            if file.exists() or not name.startswith("-"):
                found |= assignments(file.read_text())
        unset = self.words("UnsetEnvironment")
        return {name: value for name, value in found.items() if name not in unset}


def assignments(text: str) -> dict[str, str]:
    """An environment file's lines: NAME=value, whose value may stand in quotes."""
    pairs = [line.split("=", 1) for line in text.splitlines() if re.match(r"\s*\w+=", line)]
    return {name.strip(): " ".join(shlex.split(value)) for name, value in pairs}


def expanded(command: str, environment: dict[str, str]) -> list[str]:
    """A command line's words: ${NAME} is part of one, $NAME alone is as many as its value has."""
    words: list[str] = []
    for word in shlex.split(command.lstrip("-@:+!")):
        if alone := re.fullmatch(r"\$(\w+)", word):
            words += shlex.split(environment.get(alone[1], ""))
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda name: environment.get(name[1], ""), word))
    return words


def as_user(unit: Unit, words: list[str]) -> list[str]:
    """A command line that runs `words` as the unit's user."""
    user = unit.one("User")
    if not user:
        return words
    extra = unit.words("SupplementaryGroups")
    groups = [f"--groups={','.join(extra)}"] if extra else ["--clear-groups"]
    group = unit.one("Group") or str(pwd.getpwnam(user).pw_gid)
    return ["setpriv", f"--reuid={user}", f"--regid={group}", *groups, "--", *words]


def start(name: str) -> None:
    """Start a unit that does not run; for a target: what is linked to it.

    Raises:
        SystemExit: a command before its own failed, or it ended at once.
    """
    unit = Unit(name)
    for wanted in linked(unit.name):
        start(wanted)
    if unit.name.endswith(".target") or active(unit.name):
        return
    environment, cwd = unit.environment(), unit.one("WorkingDirectory").lstrip("-") or "/"
    for key, place in FOLDERS.items():
        for folder in unit.words(key):
            Path(place, folder).mkdir(parents=True, exist_ok=True)
            owner = unit.one("User") or "root"
            subprocess.run(
                ["chown", f"{owner}:{unit.one('Group')}", f"{place}/{folder}"], check=True
            )
    if cwd == "~":
        cwd = environment["HOME"]
    LOGS.mkdir(parents=True, exist_ok=True)
    RUNNING.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{unit.name}.log").open("ab") as log:
        for before in unit.said["ExecStartPre"]:
            words = as_user(unit, expanded(before, environment))
            done = subprocess.run(words, env=environment, cwd=cwd, stdout=log, stderr=log)
            if done.returncode and not before.startswith("-"):
                sys.exit(f"{unit.name}: {before}: status {done.returncode}")
        words = as_user(unit, expanded(unit.one("ExecStart"), environment))
        umask = int(unit.one("UMask") or "022", 8)
        process = subprocess.Popen(
            words,
            env=environment,
            cwd=cwd,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=umask,
        )
    if unit.one("Type") == "oneshot":
        if status := process.wait():
            sys.exit(f"{unit.name}: status {status}")
        return
    (RUNNING / unit.name).write_text(str(process.pid))
    time.sleep(0.2)
    if process.poll() is not None:
        sys.exit(f"{unit.name} ended: {(LOGS / f'{unit.name}.log').read_text()[-2000:]}")


def linked(name: str) -> list[str]:
    """What `enable` has linked to a target."""
    return [link.name for link in sorted(LINKS.glob(f"{name}.wants/*"))]


def enable(name: str) -> None:
    """Link a unit to the targets that are to start it."""
    unit = Unit(name)
    for target in unit.words("WantedBy"):
        folder = LINKS / f"{target}.wants"
        folder.mkdir(exist_ok=True)
        (folder / unit.name).unlink(missing_ok=True)
        (folder / unit.name).symlink_to(LINKS / unit.name)


def active(name: str) -> bool:
    """Whether its process lives."""
    file = RUNNING / name
    if not file.exists():
        return False
    try:
        state = Path(f"/proc/{file.read_text()}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def stop(name: str) -> None:
    """SIGTERM, and after TimeoutStopSec= SIGKILL. For a target: what is linked to it."""
    unit = Unit(name)
    for wanted in linked(unit.name):
        stop(wanted)
    if not active(unit.name):
        return
    pid = int((RUNNING / unit.name).read_text())
    os.kill(pid, getattr(signal, unit.one("KillSignal") or "SIGTERM"))
    until_s = time.monotonic() + unit.stop_s
    while active(unit.name):
        if time.monotonic() > until_s:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.1)


def main(given: list[str]) -> None:
    """The command.

    Raises:
        SystemExit: it failed, or is none of those above.
    """
    command, *names = [word for word in given if not word.startswith("-")]
    for name in names:
        match command:
            case "enable":
                enable(name)
                if "--now" in given:
                    start(name)
            case "start":
                start(name)
            case "stop":
                stop(name)
            case "restart":
                stop(name)
                start(name)
            case "is-active":
                if not active(Unit(name).name):
                    sys.exit(3)
            case _:
                sys.exit(f"{command}: tests/systemctl.py cannot do it")
    if not names and command != "daemon-reload":
        sys.exit(f"{command}: tests/systemctl.py cannot do it")


if __name__ == "__main__":
    main(sys.argv[1:])
