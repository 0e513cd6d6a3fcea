"""What a decoder may not ask the kernel for, whatever it has become: a filter of system calls.

No descriptor can be opened in it (decoder.py); this refuses what needs none. It runs as the user
that its worker is, which could otherwise be signalled, read, written to or limited by its number,
and whose files could be renamed and removed by their names. And a decoder makes no process, which
would live on when it is killed. Threads it may make: some libraries decode with several.

A list of what is refused, and not of what is allowed: another C library, or another version of it,
may need what this one does not. System calls that are newer than the list do not exist.

seccomp(2), and for the layout of the program Documentation/userspace-api/seccomp_filter.rst of the
kernel.
"""

import ctypes
import errno
import os
import platform
import struct

__all__ = ["forbid"]

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2  # prctl(2)
# linux/audit.h: AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64
_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_NEWEST = 450  # set_mempolicy_home_node, Linux 5.17; also below the numbers of x32
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_TGKILL = {"x86_64": 234, "aarch64": 131}
_CLONE_THREAD = 0x10000

_REFUSED = (  # the name, and the number on x86_64 and on aarch64
    # signals, memory and limits of other processes
    "kill 62 129, tkill 200 130, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240",
    "ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, kcmp 312 272",
    "prlimit64 302 261, setpriority 141 140, ioprio_set 251 30, sched_setaffinity 203 122",
    "sched_setscheduler 144 119, sched_setparam 142 118, sched_setattr 314 274",
    "migrate_pages 256 238, move_pages 279 239",
    # new processes and programs
    "fork 57 -, vfork 58 -, execve 59 221, execveat 322 281",
    # files by their names
    "truncate 76 45, unlink 87 -, unlinkat 263 35, rmdir 84 -, rename 82 -, renameat 264 38",
    "renameat2 316 276, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, mkdir 83 -",
    "mkdirat 258 34, mknod 133 -, mknodat 259 33, chmod 90 -, fchmodat 268 53",
    "chown 92 -, lchown 94 -, fchownat 260 54, utime 132 -, utimes 235 -, futimesat 261 -",
    "utimensat 280 88, setxattr 188 5, lsetxattr 189 6, removexattr 197 14, lremovexattr 198 15",
    # what is shared by name
    "shmget 29 194, semget 64 190, msgget 68 186, add_key 248 217, request_key 249 218",
    "keyctl 250 219",
    # the system, for a worker that is root
    "mount 165 40, umount2 166 39, chroot 161 51, pivot_root 155 41, unshare 272 97",
    "setns 308 268, swapon 167 224, swapoff 168 225, reboot 169 142, kexec_load 246 104",
    "init_module 175 105, delete_module 176 106, settimeofday 164 170, clock_settime 227 112",
    "clock_adjtime 305 266, adjtimex 159 171, sethostname 170 161, setdomainname 171 162",
    "acct 163 89, quotactl 179 60, syslog 103 116",
)

# linux/bpf_common.h: load a word; jump if equal, greater, or if bits are set; return.
_LOAD, _EQUAL, _GREATER, _SET, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # struct seccomp_data, the lower half
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def forbid() -> bool:
    """Filter this process' system calls from now on, which has to be without new privileges.

    Whether that was done: on x86_64 and aarch64, where the kernel has such filters.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES or struct.calcsize("P") != 8:
        return False
    steps = _steps(machine, os.getpid())
    program = _Program(len(steps), b"".join(struct.pack("=HBBI", *step) for step in steps))
    done = ctypes.CDLL(None).prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program))
    return bool(done == 0)


def _steps(machine: str, pid: int) -> list[tuple[int, int, int, int]]:
    """Code, how many steps to skip if so and if not, and a value."""
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    unknown = (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)
    allow = (_RETURN, 0, 0, _ALLOW)
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),  # the calls of 32 bits have other numbers
        (_LOAD, 0, 0, _NUMBER),
        (_GREATER, 0, 1, _NEWEST),
        unknown,
        (_EQUAL, 0, 1, _CLONE3),
        unknown,  # its flags cannot be seen; clone is what is tried then
    ]
    column = 1 + [*_ARCHITECTURES].index(machine)
    for row in ", ".join(_REFUSED).split(", "):
        if (number := row.split()[column]) != "-":
            steps += [(_EQUAL, 0, 1, int(number)), refuse]
    return [
        *steps,
        (_EQUAL, 0, 4, _CLONE[machine]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_SET, 1, 0, _CLONE_THREAD),
        refuse,
        allow,
        (_EQUAL, 0, 3, _TGKILL[machine]),  # abort(3) is one to oneself
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 1, 0, pid),
        refuse,
        allow,
    ]
