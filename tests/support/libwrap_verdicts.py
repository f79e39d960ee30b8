"""Ask libwrap itself whether it lets clients in: a job of `[allow table, deny table, name, address]`, answers as JSON.

Every question gets a process of its own, since some options change the process that asks.
"""

import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path


def verdict(allow: Path, deny: Path, name: str, address: str) -> bool:
    """Ask in a child process."""
    child = os.fork()
    if child == 0:
        wrap = ctypes.CDLL("libwrap.so.0")
        paths = [os.fsencode(allow), os.fsencode(deny)]  # libwrap keeps pointers to them
        ctypes.c_char_p.in_dll(wrap, "hosts_allow_table").value = paths[0]
        ctypes.c_char_p.in_dll(wrap, "hosts_deny_table").value = paths[1]
        answer = wrap.hosts_ctl(b"storescp", name.encode(), address.encode(), b"unknown")
        os._exit(0 if answer else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def main() -> None:
    """Answer a job."""
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        allow, deny = Path(folder) / "hosts.allow", Path(folder) / "hosts.deny"
        for allowing, denying, name, address in json.load(sys.stdin):
            allow.write_text(allowing, encoding="latin-1")
            deny.write_text(denying, encoding="latin-1")
            answers.append(verdict(allow, deny, name, address))
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
