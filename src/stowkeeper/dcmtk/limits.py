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
