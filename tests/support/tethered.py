"""Become another program that ends with its parent.

`python tethered.py PROGRAM ARGUMENT…`. A test run that is killed cannot stop the servers it started. On Linux the
kernel does it: PR_SET_PDEATHSIG survives the exec. Elsewhere the program simply runs.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then replace it by the program named on the command line."""
    parent = os.getppid()
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):  # exec would hand that on
        signal.signal(ignored_by_python, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the tie was made
            raise SystemExit(1)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
