"""`stowkeeper dcmrecv`: what DCMTK's program of that name does, by the same command line."""

from stowkeeper.app.commands.verbatim import verbatim_command


@verbatim_command("dcmrecv")
def dcmrecv(arguments: list[str]) -> int:
    """Receive into a folder as DCMTK's dcmrecv does, by its command line."""
    from stowkeeper.dcmtk.dcmrecv_program import run  # noqa: PLC0415 - the list of commands needs nothing of it

    return run(arguments)
