"""The command line: `stowkeeper COMMAND …`.

Nothing heavy is imported before a command needs it, so that `stowkeeper --help` answers at once: a command is a
line of `COMMANDS` until it is called.

A command is a click command in a module of this package. It returns an `ExitCode`, or nothing for `OK`. What it
raises becomes a sentence and an exit code in `failures.py`, and nowhere else.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn

import click

from stowkeeper import __version__
from stowkeeper.app.commands.failures import Invocation, PipeBrokenError, report_failure
from stowkeeper.app.exit_codes import ExitCode

PROGRAM = "stowkeeper"


class CommandEntry(NamedTuple):
    """Where a command is, and its line in `--help`.

    The module of this package holds a click command of the module's own name. `logs` is false where the command
    uses no room that logs: it then starts without that import.
    """

    module: str
    help: str
    logs: bool = True


COMMANDS: dict[str, CommandEntry] = {
    "serve": CommandEntry("serve", "Receive instances over DICOM and keep them."),
    "status": CommandEntry("status", "Tell whether a server runs on the archive, and how it is."),
    "doctor": CommandEntry("doctor", "Look for what is wrong, and name the command that mends it."),
    "service": CommandEntry("service", "Run the server as a service of this machine."),
    "send": CommandEntry("send", "Send files and folders to a DICOM server."),
    "stow": CommandEntry("stow", "Send files and folders to a DICOMweb server (STOW-RS)."),
    "echo": CommandEntry("echo", "Ask a DICOM server whether it answers."),
    "import": CommandEntry("import_", "Take files and folders into the archive."),
    "ls": CommandEntry("ls", "List what the archive keeps and what it received."),
    "rm": CommandEntry("rm", "Remove studies, series or instances."),
    "retention": CommandEntry("retention", "Show what the retention rules would remove."),
    "verify": CommandEntry("verify", "Read the archive again and check every byte."),
    "rebuild": CommandEntry("rebuild", "Restore the catalog from the files."),
    "backup": CommandEntry("backup", "Copy the catalog of the archive to TARGET, also while a server runs."),
    "migrate": CommandEntry("migrate", "Bring the catalog to the schema of this version."),
    "commit": CommandEntry(
        "commit", "Ask a peer to commit instances of the archive (DICOM storage commitment)."
    ),
    "commitments": CommandEntry(
        "commitments", "Look at storage commitments, and have them reported or asked for again."
    ),
    "jobs": CommandEntry("jobs", "Look at jobs, and pause, resume, cancel or retry them."),
    "events": CommandEntry(
        "events", "Look at events: instances received, studies that begin, are quiet, or go on late."
    ),
    "rules": CommandEntry("rules", "Try forwarding rules on what is in the archive."),
    "forwards": CommandEntry("forwards", "Look at what rules forward, and have it tried again or given up."),
    "peers": CommandEntry("peers", "List, add, remove and ask peers."),
    "audit": CommandEntry("audit", "Look at the audit trail: who did by hand what no policy does."),
    "token": CommandEntry("token", "Say who may use the HTTP interface."),
    "storescp": CommandEntry(
        "storescp", "Receive into a folder as DCMTK's storescp does, by its command line.", logs=False
    ),
    "dcmrecv": CommandEntry(
        "dcmrecv", "Receive into a folder as DCMTK's dcmrecv does, by its command line.", logs=False
    ),
    "config": CommandEntry("config", "Look at the settings, and change the settings file.", logs=False),
    "check-config": CommandEntry(
        "check_config", "Show the settings in force and where each value came from.", logs=False
    ),
}
"""Every command, in the order of `--help`."""


class LazyGroup(click.Group):
    """A group of commands whose modules are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; fail with a guess when there is none of this name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            if not cmd_name.startswith("-"):
                ctx.fail(f"There is no command '{cmd_name}'.{_guess(cmd_name)}")
            return None
        if entry.logs:
            # Unconfigured, structlog prints to standard output, where scripts expect results alone.
            import_module("stowkeeper.app.logs").log_to_console()
        module = import_module(f"{__name__}.{entry.module}")
        command: click.Command = getattr(module, entry.module)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. A broken pipe goes the way of all errors: click would end the process on its own."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise PipeBrokenError from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        """Write the commands with their lines of the table, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


def _guess(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - for a mistake only

    close = get_close_matches(name, COMMANDS, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command tells more: stowkeeper COMMAND --help. Exit codes: docs/exit-codes.md.",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_obj
def cli(invocation: Invocation, *, debug: bool) -> None:
    """Stowkeeper, a DICOM storage server whose Success means kept.

    stowkeeper serve receives what modalities send to STOWKEEPER@HOST:11112 and keeps it in the folder ./archive.
    No sender is told Success before its instance would survive a crash and a power cut.
    """
    invocation.debug = debug


def run(arguments: Sequence[str]) -> int:
    """Run a command line, the program's name left out; return its exit code. Whatever fails is reported."""
    invocation = Invocation()
    try:
        result = cli.main(args=list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=invocation)
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 - the one place where errors become sentences
        return report_failure(error, invocation)
    except KeyboardInterrupt as interrupt:
        return report_failure(interrupt, invocation)
    return int(result) if isinstance(result, int) else ExitCode.OK


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    # Whoever closed them (`>&-`) wants no output, and there is nothing to write to then.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the same
    code = run(sys.argv[1:])
    if code == ExitCode.BROKEN_PIPE:
        # The interpreter flushes standard output once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
