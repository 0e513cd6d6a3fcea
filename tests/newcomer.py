"""docs/operations.md, followed to the letter: python -m tests.newcomer [--installed]

Each block of `A bare machine` is run as root, in the order in which it stands, in a root of its
own: this machine's, in which whatever is written lies in memory (overlayfs). From `Start` on there
is no network but its own loopback. Where systemd would start services, tests/systemctl.py starts
what their units say. In the end the gateway has to be ready, two workers to be there, Flower to ask
for its login, and Prometheus to say `up` of all of them.

Packages come from their registries (minutes). With --installed, those that are here count as
installed, so that nothing is downloaded: `make test` does that. Linux, as root.
"""

import argparse
import base64
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote

from tests import systemctl
from tests.dockerfiles import ROOT
from tests.image_steps import clean_root, loopback_alone, mount, unshare

SECTION = "A bare machine"
OFFLINE_FROM = "Start"
CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
SOURCE = "usr/local/src/captionq"
VENV = "opt/captionq"
BLOCK_S, WATCH_S = 900, 60
PACKAGES = ("redis-server", "prometheus", "curl", "openssl")
"""Of Debian's; --installed wants them here. Python is that of the tests."""

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


def blocks(text: str, section: str = SECTION) -> list[Block]:
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
    if installed:
        commands |= {"apt-get": APT, "python3": f'#!/bin/sh\nexec {python} "$@" --without-pip\n'}
    for name, text in commands.items():
        command = root / "usr/local/sbin" / name
        command.write_text(text)
        command.chmod(0o755)


def lend_packages(venv: Path) -> None:
    """Have an environment find the packages of this one, and two commands; captionq is none."""
    (packages,) = (venv / "lib").glob("python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "lent.pth").write_text("\n".join(here) + "\n")
    for name in ("pip", "celery"):
        theirs = Path(sys.executable).with_name(name).read_text()
        script = venv / "bin" / name
        script.write_text("#!/opt/captionq/bin/python\n" + theirs.partition("\n")[2])
        script.chmod(0o755)


def run(root: Path, block: Block, environment: dict[str, str]) -> None:
    """Run a block. Raises subprocess.CalledProcessError, subprocess.TimeoutExpired."""
    began_s = time.monotonic()
    print(f"--- {block.heading}\n{block.commands}", end="", flush=True)
    subprocess.run(
        ["chroot", str(root), "bash", "-euo", "pipefail", "-c", block.commands],
        env=environment, check=True, timeout=BLOCK_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    print(f"took {time.monotonic() - began_s:.1f} s\n", flush=True)


def get(url: str, authorization: str = "") -> Any:
    """The JSON, or the text, that a URL answers. Raises urllib.error.URLError."""
    request = urllib.request.Request(
        url, headers={"Authorization": authorization} if authorization else {}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        request, timeout=5
    ) as reply:
        text = reply.read().decode()
    return json.loads(text) if text.startswith(("{", "[")) else text


def asked(query: str) -> list[dict[str, Any]]:
    """What Prometheus says of a query."""
    return get(f"http://127.0.0.1:9090/api/v1/query?query={quote(query)}")["data"]["result"]


def until(what: str, call: Callable[[], bool]) -> None:
    """Wait for something to be true. Raises RuntimeError: it is not in time."""
    deadline_s = time.monotonic() + WATCH_S
    problem: object = None
    while time.monotonic() < deadline_s:
        try:
            if call():
                print(f"checked: {what}", flush=True)
                return
        except (URLError, KeyError) as exc:
            problem = exc
        time.sleep(0.25)
    raise RuntimeError(f"not so after {WATCH_S} s: {what} ({problem})")


def status(url: str, authorization: str = "") -> int:
    """The status of an answer."""
    try:
        get(url, authorization)
    except HTTPError as exc:
        return exc.code
    return 200


def check(root: Path) -> None:
    """Whether everything runs. Raises RuntimeError."""
    lines = (root / "etc/captionq/flower.env").read_text()
    login = systemctl.assignments(lines)["FLOWER_BASIC_AUTH"]
    basic = "Basic " + base64.b64encode(login.encode()).decode()
    flower = "http://127.0.0.1:5555/api/workers"
    until("the gateway is ready", lambda: status("http://127.0.0.1:8000/readyz") == 200)
    until("Flower asks for a login", lambda: status(flower) == 401)
    until("and shows two workers", lambda: len(get(f"{flower}?refresh=1", basic)) == 2)
    up = {"captionq-worker": 2, "captionq-gateway": 1, "flower": 1}
    for job, number in up.items():
        until(
            f"Prometheus scrapes {number} of {job}",
            lambda job=job, number=number: [
                row["value"][1] for row in asked(f'up{{job="{job}"}}')
            ] == ["1"] * number,
        )  # fmt: skip
    until(
        "Prometheus counts two workers",
        lambda: asked("max(captionq_workers)")[0]["value"][1] == "2",
    )
    until(
        "and a job that succeeded",
        lambda: asked('sum(captionq_jobs_total{state="succeeded"})')[0]["value"][1] == "1",
    )


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
    offline = False
    try:
        for block in blocks((ROOT / "docs/operations.md").read_text()):
            if block.heading == OFFLINE_FROM and not offline:
                loopback_alone()
                offline = True
            run(image.root, block, environment)
            if installed and "-m venv" in block.commands:
                lend_packages(image.root / VENV)
            if installed and "CAPTIONQ_CAPTION_MODEL" in block.commands:
                with (image.root / "etc/captionq/env").open("a") as settings:
                    settings.write(SMALL)
        check(image.root)
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
