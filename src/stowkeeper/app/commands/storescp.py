"""`stowkeeper storescp`: what DCMTK's program of that name does, by the same command line."""

from stowkeeper.app.commands.verbatim import verbatim_command


@verbatim_command("storescp")
def storescp(arguments: list[str]) -> int:
    """Receive into a folder as DCMTK's storescp does, by its command line."""
    from stowkeeper.dcmtk.storescp_program import run  # noqa: PLC0415 - the list of commands needs nothing of it

    return run(arguments)
