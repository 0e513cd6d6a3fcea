"""docs/operations.md, followed to the letter: python -m tests.newcomer [--installed]

Each block of `A bare machine` is run as root, in the order in which it stands, in a root of its
own: this machine's, in which whatever is written lies in memory (overlayfs). What a block leaves in
its shell, its umask too, the next one finds. From `Start` on there is no network but its own
loopback. Where systemd would start services, tests/systemctl.py starts what their units say. In the
end every service has to say that it is healthy, Flower to ask for its login, and Prometheus to say
`up` of all of them. Then the blocks of `Everyday work` are run, after which that has to be so
again; and all services have to end in good order, each in its unit's time.

Packages come from their registries (minutes). With --installed, those that are here count as
installed, so that nothing is downloaded: `make test` does that. Linux, as root.
"""

import argparse
import base64
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx

from tests import systemctl
from tests.clean_root import (
    CLONE_NEWNS,
    clean_root,
    lend_packages,
    loopback_alone,
    mount,
    unshare,
)
from tests.dockerfiles import ROOT

BARE, EVERYDAY = "A bare machine", "Everyday work"
OFFLINE_FROM = "Start"
CLONE_NEWPID = 0x20000000
SOURCE = "usr/local/src/captionq"
VENV = "/opt/captionq"
BLOCK_S, WATCH_S = 900, 60
PACKAGES = ("redis-server", "prometheus", "curl", "openssl", "systemd")
"""Of Debian's; --installed wants them here. Python is that of the tests."""

RUN = {
    "captionq-worker@0.service": "http://127.0.0.1:9460/healthz",
    "captionq-worker@1.service": "http://127.0.0.1:9461/healthz",
    "captionq-gateway.service": "http://127.0.0.1:8000/healthz",
    "captionq-flower.service": "http://127.0.0.1:5555/healthcheck",
}
"""Units that serve, and where each says that it is healthy."""

LEFT = "/run/shell"
SHELL = """[ ! -e {left} ] || . {left}
{commands}
{{ umask -p; printf 'cd %q\\n' "$PWD"; declare -f; export -p; }} > {left}
"""
"""A block, in the shell that the one before it left."""

UP = 'up{{job="captionq-{}"}}'
SUCCEEDED = 'sum(captionq_jobs_total{state="succeeded"})'

SMALL = "CAPTIONQ_MAX_BATCH=4\nOMP_NUM_THREADS=1\n"
"""Settings of --installed: two workers on few cores measure no largest batch."""

APT = """#!/bin/sh
# apt-get where nothing is downloaded: what it is asked for has to be here.
[ "$1" = install ] || exit 0
shift
for word; do
    case $word in -* | python3 | python3-venv) ;; *) dpkg -s "$word" > /dev/null || exit 100 ;; esac
done
"""


@dataclass(frozen=True)
class Block:
    """Commands, and the heading that they stand under."""

    heading: str
    commands: str


def blocks(text: str, section: str) -> list[Block]:
    """The blocks of a section that are to be run: those marked bash."""
    _, found, rest = text.partition(f"\n## {section}\n")
    assert found, section
    rest = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    read, heading = [], section
    for line in re.finditer(
        r"^### (?P<heading>.+)$|^```bash\n(?P<commands>(?:.*\n)*?)```$", rest, re.MULTILINE
    ):
        heading = line["heading"] or heading
        if line["commands"]:
            read.append(Block(heading, line["commands"]))
    return read


def missing() -> list[str]:
    """Which of them are not installed here."""
    if shutil.which("dpkg-query") is None:
        return list(PACKAGES)
    asked = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *PACKAGES]
    said = subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
    return [name for name in PACKAGES if f"{name} installed" not in said]


def prepare(root: Path, installed: bool) -> None:
    """What a newcomer has before the first block: the source; here, what stands for systemd."""
    shutil.rmtree(root / "run", ignore_errors=True)
    (root / "run").mkdir()
    tmp = root / "tmp"
    tmp.mkdir(exist_ok=True)
    tmp.chmod(0o1777)
    shutil.copytree(
        ROOT,
        root / SOURCE,
        ignore=shutil.ignore_patterns(".*", "__pycache__", "*.pyc"),
        symlinks=True,
    )
    python = os.path.realpath(sys.executable)
    commands = {"systemctl": f"#!{python}\n" + Path(systemctl.__file__).read_text()}
    if installed:  # python3 is asked for an environment alone
        commands |= {"apt-get": APT, "python3": f'#!/bin/sh\nexec {python} "$@" --without-pip\n'}
    for name, text in commands.items():
        command = root / "usr/local/sbin" / name
        command.write_text(text)
        command.chmod(0o755)


def in_shell(commands: str, left: str = LEFT) -> str:
    """Commands as they are typed after those before them; `left` is what these left."""
    return SHELL.format(commands=commands, left=left)


def run(root: Path, block: Block, environment: dict[str, str]) -> None:
    """Run a block. Raises subprocess.CalledProcessError, subprocess.TimeoutExpired."""
    began_s = time.monotonic()
    print(f"--- {block.heading}\n{block.commands}", end="", flush=True)
    subprocess.run(
        ["chroot", str(root), "bash", "-euo", "pipefail", "-c", in_shell(block.commands)],
        env=environment, check=True, timeout=BLOCK_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    print(f"took {time.monotonic() - began_s:.1f} s\n", flush=True)


def get(url: str, authorization: str = "") -> httpx.Response:
    """What a URL answers. Raises httpx.HTTPError."""
    headers = {"Authorization": authorization} if authorization else {}
    return httpx.get(url, headers=headers, trust_env=False, timeout=5)


def asked(query: str) -> list[str]:
    """The values that Prometheus answers a query with."""
    answer = get(f"http://127.0.0.1:9090/api/v1/query?query={quote(query)}").json()
    return [series["value"][1] for series in answer["data"]["result"]]


def until(what: str, call: Callable[[], bool]) -> None:
    """Wait for something to be true. Raises RuntimeError: it is not in time."""
    deadline_s = time.monotonic() + WATCH_S
    problem: object = None
    while time.monotonic() < deadline_s:
        try:
            if call():
                print(f"checked: {what}", flush=True)
                return
        except (httpx.HTTPError, KeyError) as exc:
            problem = exc
        time.sleep(0.25)
    raise RuntimeError(f"not so after {WATCH_S} s: {what} ({problem})")


def check(root: Path) -> None:
    """Whether everything runs. Raises RuntimeError."""
    settings = systemctl.assignments((root / "etc/captionq/flower.env").read_text())
    basic = "Basic " + base64.b64encode(settings["FLOWER_BASIC_AUTH"].encode()).decode()
    flower = "http://127.0.0.1:5555/api/workers"
    for name, url in RUN.items():
        until(f"{name} is healthy", lambda url=url: get(url).status_code == 200)  # type: ignore[misc]
    until("the gateway is ready", lambda: get("http://127.0.0.1:8000/readyz").status_code == 200)
    until("Flower asks for a login", lambda: get(flower).status_code == 401)
    until("and shows two workers", lambda: len(get(f"{flower}?refresh=1", basic).json()) == 2)
    until("Prometheus scrapes two workers", lambda: asked(UP.format("worker")) == ["1", "1"])
    until("and the gateway", lambda: asked(UP.format("gateway")) == ["1"])
    until("and Flower", lambda: asked('up{job="flower"}') == ["1"])
    until("it counts two workers", lambda: asked("max(captionq_workers)") == ["2"])


def end(root: Path) -> None:
    """All services, as systemd ends them. Raises RuntimeError: one does not end in good order."""
    running = {name: int((root / "run/units" / name).read_text()) for name in RUN}
    subprocess.run(["chroot", str(root), "systemctl", "stop", "captionq.target"], check=True)
    for name, pid in running.items():  # orphans of systemctl's, so this process's children
        if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise RuntimeError(f"{name}: told to end, it ended with status {status}")
        print(f"checked: {name} has ended", flush=True)


def follow(base: Path, installed: bool) -> None:
    """All of it, in a process of its own: with it end its mounts, its network, its services."""
    began_s = time.monotonic()
    unshare(CLONE_NEWNS | CLONE_NEWPID)
    if (child := os.fork()) != 0:  # the first process of its namespace: the others end with it
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    mount("--make-rprivate", "/")
    mount("-t", "proc", "proc", "/proc")
    image = clean_root(base, installed)
    prepare(image.root, installed)
    environment = image.environment | {"HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
    environment["PATH"] = systemctl.BASIC["PATH"]
    if installed:
        environment["PIP_NO_DEPS"] = "1"
    page = (ROOT / "docs/operations.md").read_text()
    offline = False
    try:
        for block in blocks(page, BARE):
            if block.heading == OFFLINE_FROM and not offline:
                loopback_alone()
                offline = True
            run(image.root, block, environment)
            if installed and "-m venv" in block.commands:
                lend_packages(image.root, VENV, ["pip", "celery"])
            if installed and "CAPTIONQ_CAPTION_MODEL" in block.commands:
                with (image.root / "etc/captionq/env").open("a") as settings:
                    settings.write(SMALL)
        check(image.root)
        until("Prometheus counts the first job", lambda: asked(SUCCEEDED) == ["1"])
        for block in blocks(page, EVERYDAY):
            run(image.root, block, environment)
        check(image.root)
        end(image.root)
    except Exception as exc:
        for log in sorted((image.root / "var/log/units").glob("*.log")):
            print(f"--- {log.name}\n{log.read_text()[-3_000:]}")
        print(f"{type(exc).__name__}: {exc}", flush=True)
        os._exit(1)
    print(f"docs/operations.md was followed in {time.monotonic() - began_s:.0f} s", flush=True)
    os._exit(0)


def main(given: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--installed", action="store_true", help="see above")
    chosen = parser.parse_args(given)
    if chosen.installed and (lacking := missing()):
        sys.exit(f"--installed needs Debian's {', '.join(lacking)}")
    base = Path(tempfile.mkdtemp(prefix="captionq-newcomer-"))
    process = multiprocessing.get_context("fork").Process(
        target=follow, args=(base, chosen.installed)
    )
    process.start()
    process.join()
    base.rmdir()  # empty: what was mounted there went with the process
    if process.exitcode:
        sys.exit("docs/operations.md cannot be followed: see above")


if __name__ == "__main__":
    main()
