"""What Dockerfiles say is done, without Docker: python -m tests.image_steps [IMAGE...]

Each step of a Dockerfile is run in a root of its own: this machine's, in which whatever is written
lies in memory (overlayfs), with an empty Python environment in the place of the base image's. Then
the image's command is started as its user, on a read-only tree, with no network but its own
loopback and with a Redis, until the image's own health check is satisfied; it has to end in good
order when told to.

All packages are installed anew, from the registry (minutes). With --installed, packages of the
environment that runs this count as installed, so that nothing is downloaded: `make test` does that.
Linux, as root.
"""

import argparse
import ctypes
import fcntl
import multiprocessing
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from producer.redis_server import RedisServer
from tests.dockerfiles import (
    ROOT,
    assignments,
    command,
    copied,
    health_command,
    let_through,
    steps_to,
)

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
HEALTHY_S = 240
STOP_S = 60
PYTHON = "/usr/local/python"
"""Where the environment is that stands for the base image's Python."""

IMAGES: dict[str, tuple[str, str | None]] = {
    "worker": ("worker.Dockerfile", None),
    "baked": ("worker.Dockerfile", "baked"),
    "producer": ("producer.Dockerfile", None),
    "flower": ("producer.Dockerfile", "flower"),
}
"""The Dockerfile and target of each image."""

SCENES = str(ROOT / "worker/checkpoints/scenes")
BUILD_ARGS = {
    "CAPTION_MODEL": SCENES,
    "MATCH_MODEL": SCENES,
}
"""In place of the hub, which is not asked."""


def settings_of(image: str, broker_url: str) -> dict[str, str]:
    """What an operator sets for each image."""
    small = {"CAPTIONQ_BROKER_URL": broker_url, "CAPTIONQ_MAX_BATCH": "1"}
    bundled = {"CAPTIONQ_CAPTION_MODEL": "bundled", "CAPTIONQ_MATCH_MODEL": "none"}
    return {
        "worker": small | bundled,
        "baked": small,
        "producer": {
            "CAPTIONQ_BROKER_URL": broker_url,
            "CAPTIONQ_API_KEYS": "/var/lib/captionq/keys.json",
        },
        "flower": {"CAPTIONQ_BROKER_URL": broker_url, "FLOWER_BASIC_AUTH": "operator:s3cret"},
    }[image]


ABSENT = dict.fromkeys(("producer", "flower"), ("torch", "transformers", "PIL", "worker"))
"""What an image must not have. Where packages are lent it cannot be told."""

FIRST = {"producer": ["captionq", "keys", "new", "prometheus", "--scope", "read"]}
"""What is run once before an image's command."""


def mount(*words: str) -> None:
    """mount(8)."""
    subprocess.run(["mount", *words], check=True)


@dataclass
class Image:
    """A root in which steps were taken, and what they say of how it is run."""

    root: Path
    environment: dict[str, str]
    arguments: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    volumes: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def words(self, words: Sequence[str]) -> list[str]:
        """A command line that runs `words` inside, as the image's user."""
        user, group = self.user.split(":")
        free = ["--reuid", user, "--regid", group, "--clear-groups"]
        if user != "0":
            free += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        inside = ["sh", "-c", 'cd "$0" && exec "$@"', self.workdir, *words]
        return ["chroot", str(self.root), "setpriv", *free, *inside]

    def run(self, words: Sequence[str], **settings: str) -> None:
        """Run a command to its end. Raises subprocess.CalledProcessError."""
        environment = self.environment | self.arguments | settings
        subprocess.run(self.words(words), env=environment, check=True)


def clean_root(base: Path, installed: bool) -> Image:
    """This machine's root with an empty Python environment; it is written to in memory alone."""
    mount("-t", "tmpfs", "-o", "mode=755", "captionq", str(base))
    upper, work, root = base / "upper", base / "work", base / "root"
    for folder in (upper, work, root):
        folder.mkdir()
    mount(
        "-t", "overlay", "captionq", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", str(root)
    )
    mount("-t", "proc", "proc", str(root / "proc"))
    mount("-t", "sysfs", "-o", "ro", "sysfs", str(root / "sys"))
    mount("-t", "tmpfs", "-o", "mode=755", "captionq", str(root / "dev"))
    for device in ("null", "zero", "full", "random", "urandom"):
        (root / "dev" / device).touch()
        mount("--bind", f"/dev/{device}", str(root / "dev" / device))
    shutil.rmtree(root / "srv")
    (root / "srv").mkdir()
    for folder in Path(sys.base_prefix).parents:  # the interpreter's, maybe in root's home
        (root / folder.relative_to("/")).chmod(0o755)
    venv = [os.path.realpath(sys.executable), "-m", "venv", PYTHON]
    bare = ["--without-pip"] if installed else []
    subprocess.run(["chroot", str(root), *venv, *bare], check=True)
    if installed:
        _lend_packages(root / PYTHON[1:])
    passed = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    if installed:  # False is how pip is told it by a variable
        passed |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    path = f"{PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return Image(root, passed | {"PATH": path})


def _lend_packages(venv: Path) -> None:
    """Have an environment find the packages of this one, and pip itself; captionq is none."""
    (packages,) = (venv / "lib").glob("python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "lent.pth").write_text("\n".join(here) + "\n")
    theirs = Path(sys.executable).with_name("pip").read_text()
    script = venv / "bin/pip"
    script.write_text(f"#!{PYTHON}/bin/python\n" + theirs.partition("\n")[2])
    script.chmod(0o755)


def build(image: Image, dockerfile: Path, target: str | None) -> None:
    """Take a Dockerfile's steps to a target.

    Raises:
        ValueError: a step is not known here.
        subprocess.CalledProcessError: a command failed.
    """
    _, steps = steps_to(dockerfile, target)
    for step in steps:
        print(f"{step.instruction} {step.value[:100]}", flush=True)
        match step.instruction:
            case "WORKDIR":
                image.workdir = step.value
                (image.root / step.value[1:]).mkdir(parents=True, exist_ok=True)
            case "ENV":
                image.environment |= assignments(step.value)
            case "ARG":
                image.arguments |= assignments(step.value) | {
                    name: value
                    for name, value in BUILD_ARGS.items()
                    if name in assignments(step.value)
                }
            case "COPY":
                _copy(image, dockerfile, *copied(step.value))
            case "RUN":
                image.run(["sh", "-c", step.value])
            case "USER":
                image.user = step.value
            case "VOLUME":
                image.volumes.append(step.value)
            case "ENTRYPOINT":
                image.entrypoint = command(step.value)
            case "CMD":
                image.command = command(step.value)
            case "HEALTHCHECK":
                image.health = health_command(step.value)
            case "EXPOSE" | "STOPSIGNAL":
                pass
            case other:
                raise ValueError(f"{dockerfile.name}: {other}: tests/image_steps.py cannot do it")


def _copy(image: Image, dockerfile: Path, sources: list[str], destination: str) -> None:
    folder = image.root / os.path.join(image.workdir, destination)[1:]  # noqa: PTH118
    for source in sources:
        if not let_through(dockerfile, source):
            raise ValueError(f"{dockerfile.name}: its .dockerignore keeps {source} away")
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, folder)


def read_only(image: Image) -> None:
    """As `read_only: true` with a tmpfs for /tmp: nothing but that and the volumes is writable."""
    for number, volume in enumerate(image.volumes):
        inside = image.root / volume[1:]
        outside = image.root.parent / f"volume-{number}"
        shutil.copytree(inside, outside, symlinks=True)  # a fresh volume has what lies there
        for path in (outside, *outside.rglob("*")):
            os.chown(path, *map(int, image.user.split(":")), follow_symlinks=False)
        mount("--bind", str(outside), str(inside))
    mount("-t", "tmpfs", "-o", "mode=1777", "captionq", str(image.root / "tmp"))
    mount("-o", "remount,ro", str(image.root))


def start(name: str, image: Image) -> float:
    """Start an image's command, wait for its health check, and end it; seconds to health.

    Raises:
        RuntimeError: it ended, was not healthy in time, or did not end with status 0.
    """
    with RedisServer() as broker:
        settings = settings_of(name, broker.url) | {"OMP_NUM_THREADS": "1"}
        environment = image.environment | settings
        if name in FIRST:
            image.run(FIRST[name], **settings)
        words = image.words([*image.entrypoint, *image.command])
        began_s = time.monotonic()
        process = subprocess.Popen(words, env=environment)
        try:
            while not _healthy(image, environment):
                if process.poll() is not None or time.monotonic() - began_s > HEALTHY_S:
                    raise RuntimeError(f"{name}: not healthy; its status is {process.poll()}")
                time.sleep(0.2)
            healthy_s = time.monotonic() - began_s
            process.terminate()
            if status := process.wait(STOP_S):
                raise RuntimeError(f"{name}: told to end, it ended with status {status}")
        finally:
            process.kill()
    return healthy_s


def _healthy(image: Image, environment: dict[str, str]) -> bool:
    asked = subprocess.run(image.words(image.health), env=environment, capture_output=True)
    return asked.returncode == 0


def unshare(what: int) -> None:
    """unshare(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(what):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def loopback_alone() -> None:
    """From here on no network but a loopback of this process and its children."""
    unshare(CLONE_NEWNET)
    with socket.socket() as any_socket:  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 0x41))


def main(given: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"of {', '.join(IMAGES)}")
    parser.add_argument("--installed", action="store_true", help="see above")
    chosen = parser.parse_args(given)
    for name in chosen.images or IMAGES:
        base = Path(tempfile.mkdtemp(prefix="captionq-image-"))
        child = multiprocessing.get_context("fork").Process(
            target=try_image, args=(name, base, chosen.installed)
        )
        child.start()
        child.join()
        base.rmdir()  # empty: what was mounted there went with the process
        if child.exitcode:
            sys.exit(f"{name}: failed")


def try_image(name: str, base: Path, installed: bool) -> None:
    """All of it for one image, in a process of its own: with it end its mounts and its network."""
    began_s = time.monotonic()
    unshare(CLONE_NEWNS)
    mount("--make-rprivate", "/")
    image = clean_root(base, installed)
    dockerfile, target = IMAGES[name]
    build(image, ROOT / "docker" / dockerfile, target)
    if not installed:
        for module in ABSENT.get(name, ()):
            absent = (
                f"import importlib.util as u; assert u.find_spec({module!r}) is None, {module!r}"
            )
            image.run(["python", "-c", absent])
    built_s = time.monotonic() - began_s
    read_only(image)
    loopback_alone()
    healthy_s = start(name, image)
    print(f"{name}: built in {built_s:.0f} s, healthy after {healthy_s:.1f} s", flush=True)


if __name__ == "__main__":
    main()
