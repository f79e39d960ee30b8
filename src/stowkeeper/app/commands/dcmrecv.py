"""`stowkeeper dcmrecv`: what DCMTK's program of that name does, by the same command line."""

from stowkeeper.app.commands.verbatim import verbatim_command


@verbatim_command("dcmrecv")
def dcmrecv(arguments: list[str]) -> int:
    """Hand the command line over as it stands."""
    from stowkeeper.dcmtk.dcmrecv_program import run  # noqa: PLC0415 - help needs nothing of it

    return run(arguments)
