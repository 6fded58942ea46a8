"""The child that runs a candidate's code: standard library only, started by path, told all by its input.

Before the first line of the candidate it gives up, for good: memory and CPU beyond the limits, writing to any
file, the network, other processes and signals to them. The kernel enforces it (rlimits, seccomp), on Linux
on x86-64; elsewhere the child refuses to run. It imports nothing of this package.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import struct
import sys

READY, PASSED, FAILED = "ready", "passed", "failed"
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
ARCH = 0xC000003E  # AUDIT_ARCH_X86_64
ALLOW, DENY, KILL = 0x7FFF0000, 0x00050001, 0x80000000  # DENY: EPERM
LOAD, SAME, ANY, RETURN = 0x20, 0x15, 0x45, 0x06
OPEN, OPENAT, CLONE, CLONE3 = 2, 257, 56, 435
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000
THREAD = 0x10000
# What a Python that computes, reads files and runs threads asks of the kernel, by number: read, write, close,
# stat, fstat, lstat, poll, lseek, mmap, mprotect, munmap, brk, signals' own masks and returns, ioctl, pread,
# readv, writev, access, sched_yield, mremap, madvise, dup, nanosleep, getpid, exit, uname, fcntl, getcwd,
# readlink, gettimeofday, getrlimit, getrusage, sysinfo, times, getuid and the like, gettid, futex,
# sched_getaffinity, getdents64, clocks, exit_group, newfstatat, set_robust_list, dup3, getrandom, statx,
# rseq.
ALLOWED = (
    0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20, 21, 24, 25, 28, 32, 35, 39, 60, 63, 72,
    79, 89, 96, 97, 98, 99, 100, 102, 104, 107, 108, 131, 186, 202, 204, 217, 228, 229, 230, 231, 262, 273,
    292, 318, 332, 334,
)  # fmt: skip


def available() -> bool:
    """Whether this machine can hold a program to these limits."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 2**32


def main() -> None:
    """Reads the task, confines itself, runs the code and then the tests, and tells which of it went well."""
    task = json.loads(sys.stdin.buffer.read())
    told = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    sys.setrecursionlimit(2000)
    limit(task["seconds"], task["memory_mib"])
    confine()

    def tell(what: str) -> None:
        os.write(told, f"{task['nonce']} {what}\n".encode())

    tell(READY)
    names: dict[str, object] = {"__name__": "candidate", "__builtins__": __builtins__}
    try:
        exec(compile(task["code"], "candidate", "exec"), names)
        exec(compile(task["tests"], "tests", "exec"), names)
    except BaseException as error:  # whatever stops it, an exit included, is a failed test
        tell(f"{FAILED} {type(error).__name__}")
        os._exit(0)
    tell(PASSED)
    os._exit(0)


def limit(seconds: int, memory_mib: int) -> None:
    """CPU seconds, address space, no growing file, few open ones, no core."""
    size = memory_mib * 2**20
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, size),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def confine() -> None:
    """Installs the filter; raises OSError where the kernel does not take it."""
    program = b"".join(struct.pack("=HBBI", *line) for line in rules())
    lines = ctypes.create_string_buffer(program)
    head = struct.pack("HL", len(program) // 8, ctypes.addressof(lines))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((NO_NEW_PRIVS, 1, 0, 0, 0), (SET_SECCOMP, FILTER, head, 0, 0)):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "the kernel takes no filter")


def rules() -> list[tuple[int, int, int, int]]:
    """The filter as (code, jump if true, jump if false, value), the first that returns decides."""
    found = [(LOAD, 0, 0, 4), (SAME, 1, 0, ARCH), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    for number in ALLOWED:
        found += [(SAME, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    for number, argument in ((OPEN, 1), (OPENAT, 2)):  # for reading only
        asked = (LOAD, 0, 0, 16 + 8 * argument)
        found += [
            (SAME, 0, 4, number),
            asked,
            (ANY, 0, 1, WRITING),
            (RETURN, 0, 0, DENY),
            (RETURN, 0, 0, ALLOW),
        ]
    # a thread, and no process; libraries that ask by clone3 ask again by clone where there is none
    asked = (LOAD, 0, 0, 16)
    found += [(SAME, 0, 4, CLONE), asked, (ANY, 0, 1, THREAD), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, DENY)]
    found += [(SAME, 0, 1, CLONE3), (RETURN, 0, 0, 0x00050000 | 38)]  # ENOSYS
    return [*found, (RETURN, 0, 0, DENY)]


if __name__ == "__main__":
    main()
