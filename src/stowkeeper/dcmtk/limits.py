"""The bounds of this room, each with its reason."""

from typing import Final

INTEGER_MAX: Final = 2**31 - 1
"""The largest integer an option yields; a larger one counts as this. In seconds it is 68 years, which every timer
takes, and no option with a range of its own reaches it."""

COMMAND_FILE_BYTES_MAX: Final = 1 << 20
"""Bytes of one command file. Real ones hold some options on some lines; a kernel takes no more than 2 MiB of arguments
either."""

PROFILE_FILE_BYTES_MAX: Final = 4 << 20
"""Bytes of one file of association negotiation profiles. DCMTK's own has 30 kB; ten thousand contexts still fit."""

APPLICATION_INFORMATION_BYTES_MAX: Final = 1023
"""Bytes of extended negotiation data that one entry of a profile may hold. DCMTK refuses 1024 and more; the longest
that the standard defines has a dozen (PS3.4 §C.5.1.1)."""

FILE_NAME_TRIES_MAX: Final = 10_000
"""Names tried for one file when others are taken: as many as four digits of a serial number have. Ten thousand objects
of one kind in a millisecond, or as many equal random numbers, do not happen."""

HOST_ACCESS_TABLE_BYTES_MAX: Final = 1 << 20
"""Bytes of a table of hosts. It is read for every connection; ten thousand rules of a hundred characters fit."""

HOST_ACCESS_LINE_BYTES_MAX: Final = 2046
"""Bytes of one line there, continued ones together, without its end: what libwrap takes. It reads nothing behind a
longer one, and a table must not mean more here than there."""

HIDDEN_NAME_TRIES_MAX: Final = 10_000
"""Hidden names tried for one unfinished file. Only processes with the same number in other containers are in the way."""

LEFT_OVER_SECONDS: Final = 300.0
"""An unfinished file whose lock is free is left alone for so long where a process of its number is there: it may be about to
take the lock, or the number may be another's by now. A process that is at a file holds its lock all the time."""

PIECES_PER_WRITE_MAX: Final = 512
"""Buffers given to the system in one call: half of what Linux takes (IOV_MAX)."""

WAITING_BYTES_MAX: Final = 1 << 20
"""Bytes of a data set that wait in memory until they are written: as many as one receive buffer holds. Most instances of
scanners without many frames come whole within it, and then go to the disk in one call."""

DICTIONARY_FILE_BYTES_MAX: Final = 16 << 20
"""Bytes of one file of a data dictionary. DCMTK's own with all private elements has half a megabyte."""

ACCEPT_PAUSE_SECONDS: Final = 0.1
"""How long nothing is accepted after the system could not give a connection: what it lacks will not come at once."""

LOGGED_LETTERS_MAX: Final = 128
"""Letters of a value that a peer sent, in a line of the log: twice what a UID may have. Peers can send 64 KiB of them."""

PATIENT_FOLDER_LETTERS_MAX: Final = 200
"""Letters of a patient's name in the name of a directory (-sp): with the time behind it that is what file systems take."""

CHILDREN_MAX: Final = 256
"""Child processes of --fork at a time; who comes meanwhile waits in the system's queue. Each has some megabytes of its own,
and silent connections cost an attacker nothing."""

COMMANDS_MAX: Final = 64
"""Commands of -xcr that run at a time without -xs. Beyond that an object waits for one to end: senders are far faster than
any shell, and a machine with hundreds of shells does nothing any more."""

PRIVATE_CREATORS_MAX: Final = 4096
"""Private creators of one level of a data set in implicit VR that are remembered to tell whether it has the form asked for;
with more it is written anew, within the bounds of that. Real data sets have a dozen."""
