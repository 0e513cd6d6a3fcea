"""A root of one's own without an engine: this machine's, in which what is written lies in memory.

Linux, as root, and each in a process that has its mounts for itself (`unshare(CLONE_NEWNS)`), with
which they end.
"""

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
PYTHON = "/usr/local/python"
"""Where the environment is that stands for the base image's Python."""

LENT = "/usr/local/lent"
"""Where the packages of the environment that runs this are seen, and not written."""


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
        lend_packages(root, PYTHON, ["pip"])
    passed = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    if installed:  # False is how pip is told it by a variable
        passed |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    path = f"{PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return Image(root, passed | {"PATH": path})


def lend_packages(root: Path, venv: str, commands: Sequence[str]) -> None:
    """Have an environment of a root find the packages of this one, and some of its commands.

    captionq is none of them.
    """
    (packages,) = (root / venv[1:] / "lib").glob("python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    for number, path in enumerate(here):  # wherever they are, and whoever may go there
        folder = root / LENT[1:] / str(number)
        if not folder.exists():
            folder.mkdir(parents=True)
            mount("-o", "bind,ro", path, str(folder))
    (packages / "lent.pth").write_text("".join(f"{LENT}/{n}\n" for n in range(len(here))))
    for name in commands:
        theirs = Path(sys.executable).with_name(name).read_text()
        script = root / venv[1:] / "bin" / name
        script.write_text(f"#!{venv}/bin/python\n" + theirs.partition("\n")[2])
        script.chmod(0o755)


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
