"""Becomes a program that the kernel kills at any system call but those it is given; run by test_service_command.py.

Its arguments are their names, separated by commas, and the program with its arguments. Exit status 77: this machine has
no such filters.
"""

from __future__ import annotations

import ctypes
import os
import sys

NO_FILTERS = 77
_KILL, _ALLOW = 0x8000_0000, 0x7FFF_0000  # seccomp_init(3)
_UNKNOWN = -1  # to this version of libseccomp


def main() -> None:
    names, *program = sys.argv[1:]
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        sys.exit(NO_FILTERS)
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_KILL)))
    for name in names.split(","):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != _UNKNOWN:
            library.seccomp_rule_add(rules, ctypes.c_uint32(_ALLOW), ctypes.c_int(number), ctypes.c_uint(0))
    if library.seccomp_load(rules) != 0:
        sys.exit(NO_FILTERS)
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
