"""What must hold before a program listens, beyond a right command line: a directory to write into, a port to be had.

Each check looks at the disk or the network, once, and says no with the exit code of the program. They come in the order
in which DCMTK has them: `storescp` port, directory; `dcmrecv` directory (the port only when it listens).
"""

import os
import socket
from typing import Final

from stowkeeper.dcmtk.dcmrecv_options import DcmrecvExit, DcmrecvOptions
from stowkeeper.dcmtk.storescp_options import StorescpExit, StorescpOptions

PRIVILEGED_PORT_END: Final = 1024
"""Ports below this are for the superuser, unless the system says otherwise."""


class StartError(Exception):
    """The program cannot run. The text goes to the log as a fatal message; the program ends with `exit_code`."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ListenError(StartError):
    """A port cannot be listened on; `reason` says why and what to do."""

    def __init__(self, exit_code: int, port: int, reason: str) -> None:
        super().__init__(exit_code, f"cannot listen on port {port}: {reason}")
        self.port = port
        self.reason = reason


def check_storescp_port(options: StorescpOptions) -> None:
    """Raise StartError when this process may not listen on the port. Whether it is free shows when it is bound."""
    if options.port is not None and (defect := port_defect(options.port)):
        raise ListenError(StorescpExit.FAILURE, options.port, defect)


def check_storescp_directory(options: StorescpOptions) -> None:
    """Raise StartError when there is no output directory, or, unless nothing is stored, it cannot be written to."""
    defect = directory_defect(options.output.directory, writes=not options.trial.ignore)
    if defect:
        raise StartError(StorescpExit.FAILURE, defect)


def check_dcmrecv_directory(options: DcmrecvOptions) -> None:
    """Raise StartError when there is no output directory or it cannot be written to, also if nothing is stored."""
    defect = directory_defect(options.directory, writes=True)
    if defect:
        raise StartError(DcmrecvExit.OUTPUT_DIRECTORY, defect)


def check_dcmrecv_port(options: DcmrecvOptions) -> None:
    """Raise StartError when this process may not listen on the port. Whether it is free shows when it is bound."""
    if defect := port_defect(options.port):
        raise ListenError(DcmrecvExit.CANNOT_LISTEN, options.port, defect)


def directory_defect(directory: str, *, writes: bool) -> str:
    """Say why files cannot go into a directory; empty when they can. An empty name is the current directory."""
    path = directory or os.curdir
    if os.path.lexists(path) and not os.path.isdir(path):
        return f"output directory {directory!r} is no directory: name another with --output-directory"
    if not os.path.isdir(path):
        return f"output directory {directory!r} does not exist: create it or name another with --output-directory"
    if writes and not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        return f"output directory {directory!r} is not writable: change its mode or name another with --output-directory"
    return ""


def port_defect(port: int) -> str:
    """Say why this process may not listen on a port; empty when it may.

    Which ports need which privilege is the system's to say, so it is asked, on the loopback interface.
    """
    if port >= PRIVILEGED_PORT_END:
        return ""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return f"insufficient privileges: run as root, or take a port from {PRIVILEGED_PORT_END} on"
        except OSError:
            return ""  # whatever else is wrong is said in full when the port is bound
    return ""
