"""A root's own systemd, as the first process of namespaces of its own: no engine, no machine.

Linux, as root, with control groups of version 2. Its network is a loopback of its own. Whoever
starts it ends it, by ending its first process; `swept` then takes its control groups away.
"""

import ctypes
import os
import subprocess
import time
from pathlib import Path

from tests.clean_root import CLONE_NEWNET, CLONE_NEWNS, loopback_alone, mount, unshare

CLONE_NEWPID, CLONE_NEWCGROUP = 0x20000000, 0x02000000
CLONE_NEWUTS, CLONE_NEWIPC = 0x04000000, 0x08000000
SYSTEMD = "/lib/systemd/systemd"
UP_S = 60


def groups() -> Path:
    """Where control groups of version 2 are seen. Raises StopIteration: nowhere."""
    mounted = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return next(Path(words[1]) for words in mounted if words[2] == "cgroup2")


def boot(root: Path, group: str) -> int:
    """Start systemd on a root, in a control group of this name; its process's id.

    Raises:
        RuntimeError: it does not come up.
        OSError: the kernel lets us not.
    """
    own = groups() / group
    own.mkdir()
    reading, writing = os.pipe()
    if os.fork() == 0:
        (own / "cgroup.procs").write_text(str(os.getpid()))
        unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP)
        loopback_alone()
        if pid := os.fork():
            os.write(writing, str(pid).encode())
            os._exit(0)
        _become(root)
    os.wait()
    pid = int(os.read(reading, 20))
    until_s = time.monotonic() + UP_S
    while time.monotonic() < until_s:
        asked = [*inside(pid, network=True), "systemctl", "is-system-running"]
        state = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        if state.strip() in (b"running", b"degraded"):
            return pid
        time.sleep(0.2)
    raise RuntimeError(f"systemd is not up after {UP_S} s")


def _become(root: Path) -> None:
    """Have this process be the root's systemd."""
    for name in ("shm", "pts"):
        (root / "dev" / name).mkdir(exist_ok=True)
    (root / "dev/tty").touch()
    for words in (
        ("-t", "cgroup2", "cgroup2", f"{root}/sys/fs/cgroup"),
        ("-t", "proc", "proc", f"{root}/proc"),
        ("-o", "bind,ro", f"{root}/proc/sys", f"{root}/proc/sys"),
        ("-t", "tmpfs", "-o", "mode=755", "captionq", f"{root}/run"),
        ("-t", "tmpfs", "-o", "mode=1777", "captionq", f"{root}/dev/shm"),
        ("-t", "devpts", "-o", "newinstance,ptmxmode=0666", "captionq", f"{root}/dev/pts"),
        ("--bind", "/dev/tty", f"{root}/dev/tty"),
    ):
        mount(*words)
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    (root / "dev/fd").symlink_to("/proc/self/fd")
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "mnt"], check=True)
    subprocess.run(["umount", "-l", "/mnt"], check=True)
    silent = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(silent, number)
    words = [SYSTEMD, "--unit=sysinit.target", "--log-target=journal"]
    os.execve(SYSTEMD, words, {"container": "captionq", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


def inside(pid: int, network: bool) -> list[str]:
    """How command lines begin that run there; without `network` they have ours."""
    return ["nsenter", "-t", str(pid), "-m", "-p", "-u", "-i", "-C", *(["-n"] if network else [])]


def join_network(pid: int) -> None:
    """Have this process use its network, too. Raises OSError."""
    with Path(f"/proc/{pid}/ns/net").open("rb") as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def swept(group: str) -> None:
    """Take away the control groups that it leaves, once it has ended."""
    for folder, _, _ in os.walk(groups() / group, topdown=False):
        Path(folder).rmdir()
