"""docs/operations.md, to the letter: python -m tests.newcomer [--installed [--brief]] [--systemd]

Each block of `A bare machine` is run as root, in the order in which it stands, in a root of its
own: this machine's, in which whatever is written lies in memory (overlayfs). What a block leaves in
its shell, its umask too, the next one finds. From `Start` on there is no network but its own
loopback. Where systemd would start services, tests/systemctl.py starts what their units say. In the
end every service has to say that it is healthy, Flower to ask for its login, and Prometheus to say
`up` of all of them. Then the blocks of `Everyday work` are run, after which that has to be so
again; and all services have to end in good order, each in its unit's time.

Packages come from their registries (minutes). With --installed, those that are here count as
installed, so that nothing is downloaded: `make test FULL=1` does that, and every day's `make test`
with --brief, which leaves `Everyday work` out. With --systemd, Debian's own systemd starts the
services (tests/booted.py), with all that confines them. Linux, as root.
"""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests import booted, systemctl
from tests.clean_root import (
    CLONE_NEWNS,
    clean_root,
    lend_packages,
    loopback_alone,
    mount,
    unshare,
)
from tests.dockerfiles import ROOT
from tests.typed import Block, blocks, in_shell
from tests.whole_service import RUN, SUCCEEDED, asked, check, until

BARE, EVERYDAY = "A bare machine", "Everyday work"
OFFLINE_FROM = "Start"
CLONE_NEWPID = 0x20000000
SOURCE = "usr/local/src/captionq"
VENV = "/opt/captionq"
INTERPRETER = "/usr/local/interpreter"
"""Where the Python of the tests is seen: units see no homes, in which it may be."""

BLOCK_S = 900
PACKAGES = ("redis-server", "prometheus", "curl", "openssl", "systemd")
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


def missing() -> list[str]:
    """Which of them are not installed here."""
    if shutil.which("dpkg-query") is None:
        return list(PACKAGES)
    asked = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *PACKAGES]
    said = subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
    return [name for name in PACKAGES if f"{name} installed" not in said]


def prepare(root: Path, installed: bool, stand_in: bool) -> None:
    """What a newcomer has before the first block: the source; or else what stands for systemd."""
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
    (root / INTERPRETER[1:]).mkdir()
    mount("-o", "bind,ro", sys.base_prefix, f"{root}{INTERPRETER}")
    (root / "etc/ld.so.conf.d/0-interpreter.conf").write_text(f"{INTERPRETER}/lib\n")
    subprocess.run(["chroot", str(root), "ldconfig"], check=True)
    python = os.path.realpath(sys.executable).replace(sys.base_prefix, INTERPRETER)
    commands = {}
    if stand_in:
        commands["systemctl"] = f"#!{python}\n" + Path(systemctl.__file__).read_text()
    if installed:  # python3 is asked for an environment alone
        commands |= {"apt-get": APT, "python3": f'#!/bin/sh\nexec {python} "$@" --without-pip\n'}
    for name, text in commands.items():
        command = root / "usr/local/sbin" / name
        command.write_text(text)
        command.chmod(0o755)


def run(there: Sequence[str], block: Block, environment: dict[str, str]) -> None:
    """Run a block; `there` begins command lines that run in the root.

    Raises:
        subprocess.CalledProcessError, subprocess.TimeoutExpired: it failed, or takes too long.
    """
    began_s = time.monotonic()
    print(f"--- {block.heading}\n{block.commands}", end="", flush=True)
    subprocess.run(
        [*there, "bash", "-euo", "pipefail", "-c", in_shell(block.commands)],
        env=environment, check=True, timeout=BLOCK_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    print(f"took {time.monotonic() - began_s:.1f} s\n", flush=True)


def end(root: Path, there: Sequence[str], stand_in: bool) -> None:
    """All services, as systemd ends them. Raises RuntimeError: one does not end in good order."""
    if stand_in:
        running = {name: int((root / "run/units" / name).read_text()) for name in RUN}
    subprocess.run([*there, "systemctl", "stop", "captionq.target"], check=True)
    for name in RUN:
        if stand_in:  # orphans of systemctl's, so this process's children
            status = str(os.waitstatus_to_exitcode(os.waitpid(running[name], 0)[1]))
        else:
            show = ["systemctl", "show", "--value", "--property=ExecMainStatus", name]
            status = subprocess.check_output([*there, *show], text=True).strip()
        if status != "0":
            raise RuntimeError(f"{name}: told to end, it ended with status {status}")
        print(f"checked: {name} has ended", flush=True)


def follow(base: Path, installed: bool, brief: bool, group: str | None) -> None:
    """All of it, in a process of its own: with it end its mounts, its network, its services.

    group: the control group that systemd is started in; None is the stand-in.
    """
    began_s = time.monotonic()
    unshare(CLONE_NEWNS | CLONE_NEWPID)
    if (child := os.fork()) != 0:  # the first process of its namespace: the others end with it
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    mount("--make-rprivate", "/")
    mount("-t", "proc", "proc", "/proc")
    image = clean_root(base, installed)
    prepare(image.root, installed, stand_in=group is None)
    environment = image.environment | {"HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
    environment["PATH"] = systemctl.BASIC["PATH"]
    if installed:
        environment["PIP_NO_DEPS"] = "1"
    page = (ROOT / "docs/operations.md").read_text()
    there, offline = ["chroot", str(image.root)], False
    try:
        if group is not None:
            pid = booted.boot(image.root, group)
            there = booted.inside(pid, network=False)
        for block in blocks(page, BARE):
            if block.heading == OFFLINE_FROM and not offline:
                offline = True
                if group is None:
                    loopback_alone()
                else:
                    booted.join_network(pid)
            run(there, block, environment)
            if installed and "-m venv" in block.commands:
                lend_packages(image.root, VENV, ["pip", "celery"])
            if installed and "CAPTIONQ_CAPTION_MODEL" in block.commands:
                with (image.root / "etc/captionq/env").open("a") as settings:
                    settings.write(SMALL)
        check(image.root)
        until("Prometheus counts the first job", lambda: asked(SUCCEEDED) == ["1"])
        if not brief:
            for block in blocks(page, EVERYDAY):
                run(there, block, environment)
            check(image.root)
        end(image.root, there, stand_in=group is None)
    except Exception as exc:
        for log in sorted((image.root / "var/log/units").glob("*.log")):
            print(f"--- {log.name}\n{log.read_text()[-3_000:]}")
        if group is not None:
            subprocess.run([*there, "journalctl", "--no-pager", "--lines=60"])
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
    parser.add_argument("--brief", action="store_true", help="see above")
    parser.add_argument("--systemd", action="store_true", help="see above")
    chosen = parser.parse_args(given)
    if chosen.installed and (lacking := missing()):
        sys.exit(f"--installed needs Debian's {', '.join(lacking)}")
    base = Path(tempfile.mkdtemp(prefix="captionq-newcomer-"))
    group = base.name if chosen.systemd else None
    process = multiprocessing.get_context("fork").Process(
        target=follow, args=(base, chosen.installed, chosen.brief, group)
    )
    process.start()
    process.join()
    base.rmdir()  # empty: what was mounted there went with the process
    if group is not None:
        booted.swept(group)
    if process.exitcode:
        sys.exit("docs/operations.md cannot be followed: see above")


if __name__ == "__main__":
    main()
