"""The exit codes of every `stowkeeper` command. Scripts and service managers rely on them: they do not change.

0, 1 and 2 are what most programs use, and 4 is what the Linux Standard Base has init scripts say where a right is missing; the
others are those of sysexits.h, so that they collide with no shell.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    NO_PERMISSION = 4
    NO_INPUT = 66
    UNAVAILABLE = 69
    INTERNAL = 70
    IO_ERROR = 74
    TRY_AGAIN = 75
    SETTINGS = 78
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "The command did what it was asked. A server that was told to stop ends with this one too.",
    ExitCode.FINDINGS: (
        "The command ran to its end, and not all is well: an instance was not accepted (`send`, `stow`, `import`) or not"
        " committed (`commit`, `send --commit`), a file is damaged or missing (`verify`), a UID was not found (`rm`, `rules test`), a"
        " name is taken already (`peers add`, `token add`) or not known (`events replay`), something has to be acted on"
        " (`status`, `doctor`). What exactly, it has printed."
    ),
    ExitCode.USAGE: "The command line was wrong: an unknown command or option, a value that does not fit.",
    ExitCode.NO_PERMISSION: (
        "The right to do it is missing: to install, start or stop a service, or to read its log (`service`), to use the archive's folder"
        " (`serve`, `import`, `status`), to listen on a port below 1024 (`serve`), to write the settings file (`config`). The message says which right, and how to get it."
    ),
    ExitCode.NO_INPUT: (
        "A file or folder named does not exist, holds no instance (`send`, `stow`, `import`) or is no archive, or the archive"
        " cannot be used as it is: the message says what to do about it."
    ),
    ExitCode.UNAVAILABLE: (
        "The network was not to be had: the peer does not answer, rejected the association or the request, or does not do"
        " what it was asked for (`send --commit`), or the server's own address and port are taken. Of `status`: no server runs on"
        " the archive."
    ),
    ExitCode.INTERNAL: "An error in Stowkeeper itself. The last line says where the details are.",
    ExitCode.IO_ERROR: (
        "Reading or writing failed: disk full, no permission, a storage that cannot carry the promise, a"
        " damaged disk or database."
    ),
    ExitCode.TRY_AGAIN: (
        "Another process holds the archive or changes the settings file (`config`), or it cannot be used right now. The same command may work later. Of `commit`"
        " and `send --commit`: what the peer was asked for is not known to be committed, since no report came while the"
        " command waited."
    ),
    ExitCode.SETTINGS: "The settings are wrong. All problems are printed, each with its place.",
    ExitCode.INTERRUPTED: "Ended by Ctrl-C (SIGINT) before it was done.",
    ExitCode.BROKEN_PIPE: "Whoever read the output went away, as `head` does.",
}
"""What each code means, for the reference page."""
