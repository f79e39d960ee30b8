"""The bounds of this room: what a data set or a file may ask of us before we say no, and why so much."""

from typing import Final

CAPTURED_VALUE_MAX: Final = 4096
"""Bytes of one value that the header scanner copies: an ST of 1024 characters of four bytes each (PS3.5 §6.2), and
of an LT, which may have 10,240 characters, as much as anybody reads in a list. A longer value is a remark, not a
problem."""

CAPTURED_ALWAYS_MAX: Final = 64
"""Bytes of a value that is copied whatever else was: that is how long a UID, an LO and all shorter VRs may be
(PS3.5 §6.2), so no long text keeps an identifier from being read."""

CAPTURED_BYTES_MAX: Final = 8192
"""Bytes that the header scanner has copied from one data set when it still copies a value of more than
CAPTURED_ALWAYS_MAX. A header with every wanted value in it takes about 2 kB, and a text of the longest kind fits
beside them. The values of an instance wait in memory for the catalog: of the 79 that it wants these two bounds let
13 kB through at most; packed as they wait, ordinary ones take less than 1 kB."""

SEQUENCE_DEPTH_MAX: Final = 64
"""Sequences of undefined length inside one another. The deepest real objects, structured reports, stay below
twenty; readers that recurse, as pydicom does, give up at about two hundred."""

REMARKS_MAX: Final = 16
"""Remarks kept about one data set. They are for people, who need no more to see what kind of sender it is."""

INFLATED_BYTES_MAX: Final = 1 << 30
"""Bytes of a deflated data set after inflating. Deflate reaches 1:1032, so that a megabyte sent could keep a
processor busy with a gigabyte; the deflated syntaxes are meant for objects far smaller (PS3.5 §A.5)."""

INFLATED_CHUNK_BYTES: Final = 65_536
"""Bytes that are inflated in one step. This, not the size of the data set, is what inflating costs in memory."""

DEFLATED_SLICE_BYTES: Final = 16_384
"""Bytes given to the inflater in one step. It copies what it has not used yet once per inflated chunk, so a
long input would be copied over and over."""

PIECE_BYTES_MAX: Final = 1 << 30
"""Bytes that the header scanner looks at in one go; longer pieces are cut. It must stay below FFFFFFFFH, the
undefined length, which is told from a real one by reaching beyond the piece."""

LAYOUTS_MAX: Final = 32
"""Kinds of data sets whose headers are remembered at a time, by transfer syntax and SOP class. Each takes some hundred
kilobytes at most, some ten for an ordinary one."""

LAYOUT_ELEMENTS_MAX: Final = 512
"""Elements of one data set that are remembered. Ordinary headers have one to three hundred at the top level."""

LAYOUT_RUN_ELEMENTS_MIN: Final = 4
"""Elements that are compared in one step, at least: fewer are as quickly walked over one by one."""

LAYOUT_RUNS_ELEMENTS_MAX: Final = 4 * LAYOUT_ELEMENTS_MAX
"""Elements in all the runs of a kind. One element may be in several, which begin at different ones."""

LAYOUT_MISFITS_MAX: Final = 8
"""Data sets of a kind one after the other of which not half is as remembered, until the next one is remembered in their
place: it takes about as long as walking over one does."""

FILE_META_LENGTH_MAX: Final = 1 << 20
"""Bytes of file meta information, preamble included. Real ones take some hundred bytes, ours some thousand;
the rest is room for the private information that others put there (PS3.10 §7.1)."""

REFERENCES_MAX: Final = 100_000
"""References in one storage commitment request or report. The largest studies, whole slides and functional imaging, have
some ten thousand instances; each reference takes some 200 bytes in a message and a row in the catalog."""

COMMITMENT_INFORMATION_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bytes of the data set of a storage commitment request or report that is held in memory. REFERENCES_MAX references with
UIDs of 64 characters and every length undefined take 18 MB; the rest is room for what senders add to their items."""

AE_TITLES_READ_MAX: Final = 256
"""Bytes of a list of AE titles that is looked at: room for fifteen. The first one counts."""
