"""A root of one's own without an engine: this machine's or a bare Debian, in which what is written
lies in memory.

Linux, as root, and each in a process that has its mounts for itself (`unshare(CLONE_NEWNS)`), with
which they end.
"""

import ast
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
PYTHON = "/usr/local/python"
"""Where the environment is that stands for the base image's Python."""

LENT = "/usr/local/lent"
"""Where the packages of the environment that runs this are seen, and not written."""

PATH = f"{PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

TMPFS = "mode=1777,noexec,nosuid,nodev"
"""How an engine mounts the tmpfs that compose.yaml asks for."""


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
    root = _written_in_memory(Path("/"), base)
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
    return Image(root, passed | {"PATH": PATH})


def bare_root(base: Path, debian: Path, seen: Sequence[Path] = ()) -> Image:
    """A bare Debian's root with an empty environment of its own Python; written to in memory alone.

    It finds names and packages as this machine does.

    Args:
        debian: what `debootstrap` made; it stays as it is.
        seen: what of this machine is there too, to be read.
    """
    root = _written_in_memory(debian, base)
    settings = _settings_of_pip()
    for path in (*seen, Path("/etc/resolv.conf"), *places(settings.values())):
        see(root, path)
    subprocess.run(["chroot", str(root), "python3", "-m", "venv", PYTHON], check=True)
    return Image(root, settings | {"PATH": PATH})


def debootstrap(folder: Path, suite: str) -> None:
    """Make a bare Debian with a Python, from where this machine's apt gets its packages; or keep
    the one that is there.

    Raises:
        RuntimeError: this machine's apt knows no Debian.
        FileNotFoundError: there is no debootstrap: apt-get install debootstrap.
    """
    if (folder / "usr/bin/python3").exists() and not (folder / "debootstrap").exists():  # all of it
        return
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian"]
    mirrors = subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    mirror = next((url for url in mirrors if "security" not in url), None)
    if mirror is None:
        raise RuntimeError("no Debian is among apt's sources (and apt-get update done)")
    packages = "--include=ca-certificates,python3-venv"
    subprocess.run(
        ["debootstrap", "--variant=minbase", packages, suite, folder, mirror], check=True
    )


def see(root: Path, path: Path) -> None:
    """Show a file or folder of this machine at its place in a root, to be read alone."""
    inside = root / path.relative_to("/")
    if path.is_dir():
        inside.mkdir(parents=True, exist_ok=True)
    else:
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.touch()
    mount("-o", "bind,ro", str(path), str(inside))


def _written_in_memory(lower: Path, base: Path) -> Path:
    """A root over `lower`, with its /proc, /sys and /dev."""
    mount("-t", "tmpfs", "-o", "mode=755", "captionq", str(base))
    upper, work, root = base / "upper", base / "work", base / "root"
    for folder in (upper, work, root):
        folder.mkdir()
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount("-t", "overlay", "captionq", "-o", layers, str(root))
    mount("-t", "proc", "proc", str(root / "proc"))
    mount("-t", "sysfs", "-o", "ro", "sysfs", str(root / "sys"))
    mount("-t", "tmpfs", "-o", "mode=755", "captionq", str(root / "dev"))
    for device in ("null", "zero", "full", "random", "urandom"):
        (root / "dev" / device).touch()
        mount("--bind", f"/dev/{device}", str(root / "dev" / device))
    return root


def _settings_of_pip() -> dict[str, str]:
    """How this machine's pip is set up, as variables."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    pairs = (line.partition("=")[::2] for line in listed.splitlines())
    return {
        f"PIP_{name.rpartition('.')[2].upper().replace('-', '_')}": ast.literal_eval(value)
        for name, value in sorted(pairs, reverse=True)  # the environment's, ":env:", last
    }


def places(values: Iterable[str]) -> set[Path]:
    """Files and folders of this machine that settings name; with an index, what lies beside it."""
    words = (word.removeprefix("file://") for value in values for word in value.split())
    named = (Path(word.removesuffix("/simple")) for word in words if word[:1] == "/")
    return {path for path in named if path.exists()}


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
        # A fresh volume has what lies there, and as it lies there: whoever owns it.
        subprocess.run(["cp", "--archive", str(inside), str(outside)], check=True)
        mount("--bind", str(outside), str(inside))
    mount("-t", "tmpfs", "-o", TMPFS, "captionq", str(image.root / "tmp"))
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
