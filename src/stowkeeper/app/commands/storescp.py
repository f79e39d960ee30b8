"""`stowkeeper storescp`: what DCMTK's program of that name does, by the same command line."""

from stowkeeper.app.commands.verbatim import verbatim_command


@verbatim_command("storescp")
def storescp(arguments: list[str]) -> int:
    """Hand the command line over as it stands."""
    from stowkeeper.dcmtk.storescp_program import run  # noqa: PLC0415 - help needs nothing of it

    return run(arguments)
