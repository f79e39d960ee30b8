"""What `storescp` writes and runs: the output and event options of its table."""

from typing import Final

from stowkeeper.dcmtk.grammar import Block, Group, Integers, NotWith, OnlyWith, Option, Section, Value
from stowkeeper.dcmtk.output_options import PLACE

COMPRESSION_LEVEL_DEFAULT: Final = 6

COMPRESSED_PREFERENCES: Final = (
    "--prefer-lossless",
    "--prefer-jpeg8",
    "--prefer-jpeg12",
    "--prefer-j2k-lossless",
    "--prefer-j2k-lossy",
    "--prefer-jls-lossless",
    "--prefer-jls-lossy",
    "--prefer-mpeg2",
    "--prefer-mpeg2-high",
    "--prefer-mpeg4",
    "--prefer-mpeg4-bd",
    "--prefer-mpeg4-2-2d",
    "--prefer-mpeg4-2-3d",
    "--prefer-mpeg4-2-st",
    "--prefer-hevc",
    "--prefer-hevc10",
    "--prefer-rle",
)
"""Preferences for compressed pixel data, which is stored as it comes and in no other transfer syntax."""

_NOT_PRESERVING = NotWith(others=("--bit-preserving",))
_CONVERTS = (
    NotWith(others=("--accept-all",)),
    _NOT_PRESERVING,
    *(NotWith(others=(preference,)) for preference in COMPRESSED_PREFERENCES),
)
_SORTS = ("--sort-conc-studies", "--sort-on-study-uid", "--sort-on-patientname")
_AT_STUDY_END = (NotWith(others=("--fork",)), NotWith(others=("--inetd",)), OnlyWith(others=_SORTS))
_PADDING = Integers()

_PRESERVING = Group(
    title="bit preserving mode",
    options=(
        Option(long="--normal", short="-B", is_default=True, meaning="write as the options below say"),
        Option(long="--bit-preserving", short="+B", meaning="write the bytes of the data set as they come"),
    ),
)
_FILE_FORMAT = Group(
    title="file format",
    options=(
        Option(long="--write-file", short="+F", is_default=True, meaning="with file meta information"),
        Option(long="--write-dataset", short="-F", meaning="the data set alone"),
    ),
)
_TRANSFER_SYNTAX = Group(
    title="transfer syntax of files",
    options=(
        Option(long="--write-xfer-same", short="+t=", is_default=True, meaning="as received"),
        Option(long="--write-xfer-little", short="+te", rules=_CONVERTS, meaning="explicit VR little endian"),
        Option(long="--write-xfer-big", short="+tb", rules=_CONVERTS, meaning="explicit VR big endian"),
        Option(
            long="--write-xfer-implicit", short="+ti", rules=_CONVERTS, meaning="implicit VR little endian"
        ),
        Option(
            long="--write-xfer-deflated",
            short="+td",
            rules=_CONVERTS,
            meaning="deflated explicit VR little endian",
        ),
    ),
)
_REPRESENTATIONS = Group(
    title="value representations that are younger than 1993",
    options=(
        Option(
            long="--enable-new-vr",
            short="+u",
            is_default=True,
            rules=(_NOT_PRESERVING,),
            meaning="write them",
        ),
        Option(
            long="--disable-new-vr",
            short="-u",
            rules=(_NOT_PRESERVING,),
            meaning="write OB in place of UN, UT and the others",
        ),
    ),
)
_GROUP_LENGTHS = Group(
    title="group lengths",
    options=(
        Option(
            long="--group-length-recalc",
            short="+g=",
            is_default=True,
            rules=(_NOT_PRESERVING,),
            meaning="write those that were received, with their true values",
        ),
        Option(
            long="--group-length-create",
            short="+g",
            rules=(_NOT_PRESERVING,),
            meaning="write one for every group",
        ),
        Option(long="--group-length-remove", short="-g", rules=(_NOT_PRESERVING,), meaning="write none"),
    ),
)
_SEQUENCE_LENGTHS = Group(
    title="lengths of sequences and items",
    options=(
        Option(
            long="--length-explicit",
            short="+e",
            is_default=True,
            rules=(_NOT_PRESERVING,),
            meaning="explicit",
        ),
        Option(long="--length-undefined", short="-e", rules=(_NOT_PRESERVING,), meaning="undefined"),
    ),
)
_TRAILING_PADDING = Group(
    title="padding at the end of data set and items",
    options=(
        Option(long="--padding-off", short="-p", is_default=True, meaning="none"),
        Option(
            long="--padding-create",
            short="+p",
            values=(
                Value(label="[f]ile-pad", integers=_PADDING),
                Value(label="[i]tem-pad", integers=_PADDING),
            ),
            rules=(NotWith(others=("--write-dataset",)), _NOT_PRESERVING),
            meaning="so that the file is a multiple of f bytes and each item one of i bytes; 0 for none",
        ),
    ),
)
_UNKNOWN = Group(
    title="elements of VR UN with a defined length",
    options=(
        Option(long="--retain-un", short="-uc", is_default=True, meaning="stay UN"),
        Option(
            long="--convert-un", short="+uc", meaning="get their VR from the data dictionary if it has one"
        ),
    ),
)
_COMPRESSION = Group(
    title="deflated files",
    options=(
        Option(
            long="--compression-level",
            short="+cl",
            values=(
                Value(label="[l]evel", integers=Integers(maximum=9), default=str(COMPRESSION_LEVEL_DEFAULT)),
            ),
            rules=(OnlyWith(others=("--write-xfer-deflated", "--write-xfer-same")),),
            meaning="deflate with level l, from 0, which compresses nothing, over the fast 1 to the thorough 9",
        ),
    ),
)
_SORTING = Group(
    title="a subdirectory for each study",
    options=(
        Option(
            long="--sort-conc-studies",
            short="-ss",
            values=(Value(label="[p]refix"),),
            rules=(_NOT_PRESERVING,),
            meaning="named by prefix p and the time when its first object came",
        ),
        Option(
            long="--sort-on-study-uid",
            short="-su",
            values=(Value(label="[p]refix"),),
            rules=(_NOT_PRESERVING,),
            meaning="named by prefix p and the Study Instance UID",
        ),
        Option(
            long="--sort-on-patientname",
            short="-sp",
            rules=(_NOT_PRESERVING,),
            meaning="named by the Patient's Name and the time when its first object came",
        ),
    ),
)
_NAMES = Group(
    title="names of files",
    options=(
        Option(
            long="--default-filenames", short="-uf", is_default=True, meaning="made of the SOP Instance UID"
        ),
        Option(long="--unique-filenames", short="+uf", meaning="made of a new UID each"),
        Option(
            long="--timenames",
            short="-tn",
            rules=(NotWith(others=("--unique-filenames",)),),
            meaning="made of the time of storing",
        ),
        Option(
            long="--filename-extension",
            short="-fe",
            values=(Value(label="[e]xtension"),),
            meaning="put e behind every name, with a dot only if it has one",
        ),
    ),
)

OUTPUT: Final = Section(
    title="output options",
    groups=(
        PLACE,
        _PRESERVING,
        _FILE_FORMAT,
        _TRANSFER_SYNTAX,
        _REPRESENTATIONS,
        _GROUP_LENGTHS,
        _SEQUENCE_LENGTHS,
        _TRAILING_PADDING,
        _UNKNOWN,
        _COMPRESSION,
        _SORTING,
        _NAMES,
    ),
)
OUTPUT_STAGE: Final[tuple[Block, ...]] = (
    ("--output-directory",),
    ("--normal", "--bit-preserving"),
    ("--write-file", "--write-dataset"),
    (
        "--write-xfer-same",
        "--write-xfer-little",
        "--write-xfer-big",
        "--write-xfer-implicit",
        "--write-xfer-deflated",
    ),
    ("--enable-new-vr", "--disable-new-vr"),
    ("--group-length-recalc", "--group-length-create", "--group-length-remove"),
    ("--length-explicit", "--length-undefined"),
    ("--padding-off", "--padding-create"),
    ("--retain-un", "--convert-un"),
    ("--compression-level",),
    _SORTS,
    ("--default-filenames", "--unique-filenames"),
    ("--timenames",),
    ("--filename-extension",),
)

EVENTS: Final = Section(
    title="event options",
    groups=(
        Group(
            options=(
                Option(
                    long="--exec-on-reception",
                    short="-xcr",
                    values=(Value(label="[c]ommand"),),
                    meaning="run command c for every object; #p #f #a #c #r stand for its directory, its file, the"
                    " calling and the called AE title and the peer's host",
                ),
                Option(
                    long="--exec-on-eostudy",
                    short="-xcs",
                    values=(Value(label="[c]ommand"),),
                    rules=_AT_STUDY_END,
                    meaning="run command c for every study that is complete; all of these but #f stand there, too",
                ),
                Option(
                    long="--rename-on-eostudy",
                    short="-rns",
                    rules=_AT_STUDY_END,
                    meaning="number the files of a study that is complete in the order in which they came",
                ),
                Option(
                    long="--eostudy-timeout",
                    short="-tos",
                    values=(Value(label="[t]imeout", integers=Integers(signed=True), default="off"),),
                    rules=(OnlyWith(others=(*_SORTS, "--exec-on-eostudy", "--rename-on-eostudy")),),
                    meaning="hold a study for complete when nothing has come for t seconds",
                ),
                Option(
                    long="--exec-sync",
                    short="-xs",
                    meaning="wait for a command to end before the next message is read",
                ),
            )
        ),
    ),
)
EVENTS_STAGE: Final[tuple[Block, ...]] = (
    ("--exec-on-reception",),
    ("--exec-on-eostudy",),
    ("--rename-on-eostudy",),
    ("--eostudy-timeout",),
    ("--exec-sync",),
)
