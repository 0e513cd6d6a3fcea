"""Unit files of docker/systemd/, read and run without systemd: python -m tests.systemd_units

Every unit's ExecStart is started with the environment that the unit gives it, two workers among
them, on a loopback of their own with a Redis, until each is healthy; then each has to end in good
order within its TimeoutStopSec. What confines a unit is systemd's own, and not done here.
Linux, as root.
"""

import configparser
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from producer.redis_server import RedisServer
from tests.clean_root import loopback_alone
from tests.dockerfiles import ROOT

UNITS = ROOT / "docker/systemd"
INSTALLED = "/opt/captionq/bin/"
HEALTHY_S = 240

RUN = {
    "captionq-worker@0.service": "http://127.0.0.1:9460/healthz",
    "captionq-worker@1.service": "http://127.0.0.1:9461/healthz",
    "captionq-gateway.service": "http://127.0.0.1:8000/healthz",
    "captionq-flower.service": "http://127.0.0.1:5555/healthcheck",
}
"""Units that serve, and where each says that it is healthy."""


class _Lines(configparser.RawConfigParser):
    """Names in capitals and small letters; one that comes again adds to itself."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


class _Repeated(dict[str, object]):
    def __setitem__(self, key: str, value: object) -> None:
        if isinstance(value, list) and key in self:
            super().__getitem__(key).extend(value)  # type: ignore[attr-defined]
        else:
            super().__setitem__(key, value)


@dataclass(frozen=True)
class Unit:
    """A unit file as an instance of it is started; `folder` stands for the root of the machine."""

    name: str
    folder: Path = Path("/")

    @property
    def file(self) -> Path:
        """Where it is written."""
        return UNITS / re.sub(r"@[^.]+", "@", self.name)

    def said(self, key: str) -> list[str]:
        """What [Service] says of a key, each time, with specifiers in place."""
        text = self.file.read_text().replace("\\\n", " ")
        parser = _Lines(dict_type=_Repeated, strict=False, interpolation=None)  # type: ignore[arg-type]
        parser.read_string(text)
        instance = self.name.partition("@")[2].partition(".")[0]
        known = {"i": instance, "%": "%"}
        lines = parser["Service"].get(key, fallback="").splitlines()
        return [re.sub("%(.)", lambda found: known[found[1]], line) for line in lines if line]

    @property
    def stop_s(self) -> float:
        """How long it gets to end."""
        return float(self.said("TimeoutStopSec")[-1])

    @property
    def environment(self) -> dict[str, str]:
        """What its process sees.

        Raises:
            FileNotFoundError: an EnvironmentFile that may not be missing is.
        """
        found = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        for line in self.said("Environment"):
            found |= dict(word.split("=", 1) for word in shlex.split(line))
        for name in self.said("EnvironmentFile"):
            file = self.folder / name.removeprefix("-").lstrip("/")
            if file.exists() or not name.startswith("-"):
                lines = file.read_text().splitlines()
                found |= dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
        return {
            key: value.replace("/var/lib/captionq", str(self.folder / "var/lib/captionq"))
            for key, value in found.items()
        }

    @property
    def command(self) -> list[str]:
        """ExecStart, of the environment that runs this."""
        (line,) = self.said("ExecStart")
        words = shlex.split(line)
        if not words[0].startswith(INSTALLED):
            raise ValueError(f"{self.name}: {words[0]} is not below {INSTALLED}")
        name = words[0].removeprefix(INSTALLED)
        return [str(Path(sys.executable).with_name(name)), *words[1:]]

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it, in its folder."""
        (place,) = self.said("WorkingDirectory")
        folder = self.folder / place.lstrip("/")
        more = {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }  # as this checkout's, not installed
        return subprocess.Popen(self.command, env=self.environment | more, cwd=folder)


def until_healthy(url: str, process: "subprocess.Popen[bytes]", deadline_s: float) -> None:
    """Raises RuntimeError when it ends, or is not healthy by then."""
    while True:
        try:
            if httpx.get(url, trust_env=False, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"{url}: not healthy; its process has status {process.poll()}")
        time.sleep(0.2)


def main() -> None:
    """The command."""
    loopback_alone()
    running: dict[Unit, subprocess.Popen[bytes]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="captionq-units-") as temporary,
        RedisServer() as broker,
    ):
        folder = Path(temporary)
        (folder / "etc/captionq").mkdir(parents=True)
        (folder / "var/lib/captionq").mkdir(parents=True)
        (folder / "etc/captionq/env").write_text(
            f"CAPTIONQ_BROKER_URL={broker.url}\nCAPTIONQ_CAPTION_MODEL=bundled\n"
            "CAPTIONQ_MATCH_MODEL=none\nCAPTIONQ_MAX_BATCH=1\n"
        )
        (folder / "etc/captionq/flower.env").write_text("FLOWER_BASIC_AUTH=operator:s3cret\n")
        try:
            for name in RUN:
                unit = Unit(name, folder)
                running[unit] = unit.start()
            deadline_s = time.monotonic() + HEALTHY_S
            for unit, process in running.items():
                until_healthy(RUN[unit.name], process, deadline_s)
                print(f"{unit.name}: healthy", flush=True)
            ready = httpx.get("http://127.0.0.1:8000/readyz", trust_env=False, timeout=10)
            print(f"captionq-gateway.service: {ready.json()}", flush=True)
            ready.raise_for_status()
            for unit, process in running.items():
                process.terminate()
                if status := process.wait(unit.stop_s):
                    raise RuntimeError(f"{unit.name}: told to end, it ended with status {status}")
                print(f"{unit.name}: ended", flush=True)
        finally:
            for process in running.values():
                process.kill()


if __name__ == "__main__":
    main()
