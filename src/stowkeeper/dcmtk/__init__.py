"""Stand in for DCMTK's `storescp` and `dcmrecv`: the same command lines, files, answers and exit codes.

Nothing here knows the archive: these two commands keep files in a folder, as the programs they replace do.
"""
