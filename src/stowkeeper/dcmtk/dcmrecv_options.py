"""The command line of `dcmrecv`: its option table, and what a command line means."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from functools import cache
from typing import Final

from stowkeeper.dcmtk.evaluation import Selection, by_option
from stowkeeper.dcmtk.grammar import (
    Block,
    CommandLine,
    Group,
    NotWith,
    Option,
    OptionTable,
    Section,
    Value,
)
from stowkeeper.dcmtk.log_options import GENERAL, LOG_STAGE, LogOptions, StartLogging, begin_logging
from stowkeeper.dcmtk.network_options import (
    DISABLE_HOST_LOOKUP,
    MAX_PDU,
    NetworkOptions,
    ProfileChoice,
    config_file_option,
    network_options,
    profile_choice,
    timeout_options,
)
from stowkeeper.dcmtk.output_options import PLACE
from stowkeeper.dcmtk.tls_options import TLSChoice, tls_choice
from stowkeeper.dcmtk.tls_table import ALL_PROFILES, tls_section, tls_stage, unavailable_options
from stowkeeper.net.tls_profiles import SecurityProfile


class Subdirectories(Enum):
    """Whether files go into directories by Series Date."""

    NONE = "--no-subdir"
    SERIES_DATE = "--series-date-subdir"


class FileNames(Enum):
    """What a file name is made of: the SOP Instance UID, a new UID, random digits, or the time."""

    INSTANCE_UID = "--default-filenames"
    NEW_UID = "--unique-filenames"
    SHORT_UNIQUE = "--short-unique-names"
    TIME = "--system-time-names"


class StorageMode(Enum):
    """How a data set is kept: written anew, as it comes, or not at all."""

    NORMAL = "--normal"
    BIT_PRESERVING = "--bit-preserving"
    IGNORE = "--ignore"


_NETWORK: Final = Section(
    title="network options",
    groups=(
        Group(title="association negotiation profile", options=(config_file_option(),)),
        Group(
            title="application entity title",
            options=(
                Option(
                    long="--use-called-aetitle",
                    short="-uca",
                    is_default=True,
                    meaning="answer to whatever title we are called by",
                ),
                Option(
                    long="--aetitle",
                    short="-aet",
                    values=(Value(label="[a]etitle"),),
                    meaning="answer to title a, reject associations that call another",
                ),
            ),
        ),
        Group(
            title="other network options",
            options=(*timeout_options(signed=False), MAX_PDU, DISABLE_HOST_LOOKUP),
        ),
    ),
)
_NETWORK_STAGE: Final[tuple[Block, ...]] = (
    ("--config-file",),
    ("--use-called-aetitle", "--aetitle"),
    ("--acse-timeout",),
    ("--dimse-timeout",),
    ("--max-pdu",),
    ("--disable-host-lookup",),
)

_SUBDIRECTORIES = Group(
    title="subdirectories",
    options=(
        Option(long="--no-subdir", short="-s", is_default=True, meaning="none"),
        Option(
            long="--series-date-subdir",
            short="+ssd",
            meaning="data/YYYY/MM/DD by Series Date; undef/YYYYMMDD by today's date without one",
        ),
    ),
)
_NAMES = Group(
    title="names of files",
    options=(
        Option(
            long="--default-filenames", short="+fd", is_default=True, meaning="made of the SOP Instance UID"
        ),
        Option(long="--unique-filenames", short="+fu", meaning="made of a new UID each"),
        Option(
            long="--short-unique-names",
            short="+fsu",
            meaning="made of 16 random hexadecimal digits, never of one that is there",
        ),
        Option(long="--system-time-names", short="+fst", meaning="made of the time of storing"),
        Option(
            long="--filename-extension",
            short="-fe",
            values=(Value(label="[e]xtension", default="none"),),
            meaning="put e behind every name, with a dot only if it has one",
        ),
    ),
)
_STORAGE_MODE = Group(
    title="storage mode",
    options=(
        Option(
            long="--normal", short="-B", is_default=True, meaning="write the elements of the data set anew"
        ),
        Option(
            long="--bit-preserving",
            short="+B",
            rules=(NotWith(others=("--series-date-subdir",)),),
            meaning="write the bytes of the data set as they come",
        ),
        Option(long="--ignore", meaning="answer Success to what is received, and store nothing"),
    ),
)
_OUTPUT: Final = Section(title="output options", groups=(PLACE, _SUBDIRECTORIES, _NAMES, _STORAGE_MODE))
_OUTPUT_STAGE: Final[tuple[Block, ...]] = (
    ("--output-directory",),
    tuple(kind.value for kind in Subdirectories),
    tuple(kind.value for kind in FileNames),
    ("--filename-extension",),
    tuple(kind.value for kind in StorageMode),
)


@cache
def dcmrecv_table(available: frozenset[SecurityProfile] = ALL_PROFILES) -> OptionTable:
    """Return the table of `dcmrecv` where the TLS library can do the given security profiles."""
    return OptionTable(
        tool="dcmrecv",
        title="receive DICOM objects into files, plainly",
        port_meaning="TCP port to listen on",
        is_port_required=True,
        sections=(GENERAL, _NETWORK, tls_section(available), _OUTPUT),
        stages={
            "log": LOG_STAGE,
            "network": _NETWORK_STAGE,
            "output": _OUTPUT_STAGE,
            "tls": tls_stage(available),
        },
        unavailable=unavailable_options(available),
    )


class DcmrecvExit(IntEnum):
    """How `dcmrecv` ends: each error that scripts may want to tell apart has its own code."""

    NO_ERROR = 0
    COMMAND_LINE = 1
    OUTPUT_DIRECTORY = 45
    CANNOT_LISTEN = 64
    ASSOCIATION_PROFILE = 66
    TRANSPORT_LAYER = 71


@dataclass(frozen=True, slots=True, kw_only=True)
class DcmrecvOptions:
    """A command line of `dcmrecv` that is right in itself.

    Without an `ae_title` every called title is answered.
    """

    port: int
    explain: bool = False
    log: LogOptions = field(default_factory=LogOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    profile: ProfileChoice | None = None
    ae_title: str | None = None
    tls: TLSChoice | None = None
    directory: str = "."
    subdirectories: Subdirectories = Subdirectories.NONE
    file_names: FileNames = FileNames.INSTANCE_UID
    extension: str = ""
    storage_mode: StorageMode = StorageMode.NORMAL


def evaluate_dcmrecv(
    table: OptionTable, command_line: CommandLine, *, start_logging: StartLogging
) -> DcmrecvOptions:
    """Return the options of a command line without an exclusive option.

    `start_logging` is called before anything that may depend on the log. Next come, each with an exit code of its own:
    the profile, the output directory, the TLS files, and listening. Raises CommandLineError for the first thing that is
    wrong.
    """
    selection = Selection(table, command_line)
    log = begin_logging(selection, command_line, start_logging)
    selection.check("network")
    selection.check("output")
    port = selection.port()
    tls = tls_choice(selection)
    profile = profile_choice(selection)
    return DcmrecvOptions(
        port=port,
        explain=command_line.has("--explain"),
        log=log,
        network=network_options(selection),
        profile=profile,
        ae_title=selection.text("--aetitle"),
        tls=tls,
        directory=selection.text("--output-directory") or ".",
        subdirectories=selection.choice(by_option(Subdirectories), Subdirectories.NONE),
        file_names=selection.choice(by_option(FileNames), FileNames.INSTANCE_UID),
        extension=selection.text("--filename-extension") or "",
        storage_mode=selection.choice(by_option(StorageMode), StorageMode.NORMAL),
    )
