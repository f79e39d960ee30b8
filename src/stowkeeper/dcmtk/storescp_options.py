"""What a command line of `storescp` means: typed options, checked in the order in which DCMTK does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from stowkeeper.dcmtk.evaluation import Selection, by_option
from stowkeeper.dcmtk.grammar import CommandLine, OptionTable
from stowkeeper.dcmtk.log_options import LogOptions, StartLogging, begin_logging
from stowkeeper.dcmtk.network_options import NetworkOptions, ProfileChoice, network_options, profile_choice
from stowkeeper.dcmtk.preferences import Preference
from stowkeeper.dcmtk.storescp_output_table import COMPRESSION_LEVEL_DEFAULT
from stowkeeper.dcmtk.storescp_table import AE_TITLE_DEFAULT, PREFERENCES, SOCKET_TIMEOUT_DEFAULT
from stowkeeper.dcmtk.tls_options import TLSChoice, tls_choice


class StorescpExit(IntEnum):
    """How `storescp` ends; INETD is for a connection that the super server did not hand over as it should."""

    NO_ERROR = 0
    FAILURE = 1
    INETD = 99


class ProcessModel(Enum):
    """How associations share processes."""

    SINGLE = "--single-process"
    FORK = "--fork"


class WriteTransferSyntax(Enum):
    """The transfer syntax of files: as received, or one of the uncompressed ones."""

    SAME = "--write-xfer-same"
    EXPLICIT_LITTLE = "--write-xfer-little"
    EXPLICIT_BIG = "--write-xfer-big"
    IMPLICIT_LITTLE = "--write-xfer-implicit"
    DEFLATED = "--write-xfer-deflated"


class GroupLengths(Enum):
    """Which group length elements are written: those received with true values, all, or none."""

    RECALCULATE = "--group-length-recalc"
    CREATE = "--group-length-create"
    REMOVE = "--group-length-remove"


class SequenceLengths(Enum):
    """How the lengths of sequences and items are written."""

    EXPLICIT = "--length-explicit"
    UNDEFINED = "--length-undefined"


class SortMode(Enum):
    """What names the subdirectory of a study."""

    NONE = "none"
    TIMESTAMP = "--sort-conc-studies"
    STUDY_UID = "--sort-on-study-uid"
    PATIENT_NAME = "--sort-on-patientname"


class FileNames(Enum):
    """What a file name is made of: the SOP Instance UID, a new UID, or the time."""

    INSTANCE_UID = "--default-filenames"
    NEW_UID = "--unique-filenames"
    TIME = "--timenames"


@dataclass(frozen=True, slots=True, kw_only=True)
class Padding:
    """Padding elements at the end: a file is a multiple of `file` bytes, an item one of `item` bytes; 0 for none."""

    file: int
    item: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOptions:
    """The options by which senders are tried: rejections, aborts, and seconds of waiting."""

    refuse: bool = False
    reject_without_implementation_class: bool = False
    ignore: bool = False
    sleep_after: int = 0
    sleep_during: int = 0
    abort_after: bool = False
    abort_during: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """How and where objects are written.

    `bit_preserving` takes the bytes of a data set as they come, so that of the rest only the file format, the names and
    the directory matter. `sort_prefix` belongs to the two sort modes that take one.
    """

    directory: str = "."
    bit_preserving: bool = False
    with_file_meta: bool = True
    transfer_syntax: WriteTransferSyntax = WriteTransferSyntax.SAME
    new_vrs: bool = True
    group_lengths: GroupLengths = GroupLengths.RECALCULATE
    sequence_lengths: SequenceLengths = SequenceLengths.EXPLICIT
    padding: Padding | None = None
    convert_un: bool = False
    compression_level: int = COMPRESSION_LEVEL_DEFAULT
    sort: SortMode = SortMode.NONE
    sort_prefix: str = ""
    file_names: FileNames = FileNames.INSTANCE_UID
    extension: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventOptions:
    """What happens behind an object and behind a study.

    `study_timeout` is in seconds: a study is complete when nothing has come for so long; None for never by time.
    """

    on_reception: str | None = None
    on_study_end: str | None = None
    rename_on_study_end: bool = False
    study_timeout: int | None = None
    synchronous: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StorescpOptions:
    """A command line of `storescp` that is right in itself.

    `port` is None with `inetd`. `socket_timeout` is in seconds, None for none. `ae_title` has no effect on the wire.
    `warnings` are for the log, now that it runs.
    """

    port: int | None
    explain: bool = False
    log: LogOptions = field(default_factory=LogOptions)
    process_model: ProcessModel = ProcessModel.SINGLE
    inetd: bool = False
    network: NetworkOptions = field(default_factory=NetworkOptions)
    profile: ProfileChoice | None = None
    preference: Preference = Preference.UNCOMPRESSED
    access_control: bool = False
    socket_timeout: int | None = SOCKET_TIMEOUT_DEFAULT
    ae_title: str = AE_TITLE_DEFAULT
    promiscuous: bool = False
    uid_padding: bool = False
    trial: TrialOptions = field(default_factory=TrialOptions)
    tls: TLSChoice | None = None
    output: OutputOptions = field(default_factory=OutputOptions)
    events: EventOptions = field(default_factory=EventOptions)
    warnings: tuple[str, ...] = ()


def evaluate_storescp(
    table: OptionTable,
    command_line: CommandLine,
    *,
    start_logging: StartLogging,
    load_profile: Callable[[ProfileChoice], None],
    take_connection: Callable[[], None] = lambda: None,
) -> StorescpOptions:
    """Return the options of a command line without an exclusive option.

    `start_logging` is called before anything that may depend on the log, `load_profile` where DCMTK reads the profile:
    behind the network options and before the rest, which decides what of several errors is seen. `take_connection` is
    called for --inetd before anything could be written to standard error. What they raise comes through. Raises CommandLineError for the first thing that is wrong.
    """
    selection = Selection(table, command_line)
    selection.check("process")
    inetd = selection.has("--inetd")
    port = None if inetd else selection.port()
    if inetd:
        selection.silence()  # standard error is the peer's connection: no word goes there
        take_connection()
    log = begin_logging(selection, command_line, start_logging)
    selection.check("network")
    selection.check("profile")
    profile = profile_choice(selection)
    if profile is not None:
        load_profile(profile)
    selection.check("output")
    selection.check("events")
    tls = tls_choice(selection)
    socket_timeout = selection.integer("--socket-timeout")
    return StorescpOptions(
        port=port,
        explain=command_line.has("--explain"),
        log=log,
        process_model=selection.choice(by_option(ProcessModel), ProcessModel.SINGLE),
        inetd=inetd,
        network=network_options(selection),
        profile=profile,
        preference=selection.choice(PREFERENCES, Preference.UNCOMPRESSED),
        access_control=selection.has("--access-control"),
        socket_timeout=SOCKET_TIMEOUT_DEFAULT if socket_timeout is None else max(socket_timeout, 0) or None,
        ae_title=_text(selection, "--aetitle", AE_TITLE_DEFAULT),
        promiscuous=selection.has("--promiscuous"),
        uid_padding=selection.has("--uid-padding"),
        trial=_trial_options(selection),
        tls=tls,
        output=_output_options(selection),
        events=_event_options(selection),
        warnings=_warnings(command_line, inetd=inetd),
    )


def _text(selection: Selection, long: str, default: str) -> str:
    text = selection.text(long)
    return default if text is None else text


def _trial_options(selection: Selection) -> TrialOptions:
    return TrialOptions(
        refuse=selection.has("--refuse"),
        reject_without_implementation_class=selection.has("--reject"),
        ignore=selection.has("--ignore"),
        sleep_after=selection.integer("--sleep-after") or 0,
        sleep_during=selection.integer("--sleep-during") or 0,
        abort_after=selection.has("--abort-after"),
        abort_during=selection.has("--abort-during"),
    )


def _output_options(selection: Selection) -> OutputOptions:
    padding = selection.integers("--padding-create")
    level = selection.integer("--compression-level")
    sort = selection.choice(by_option(SortMode), SortMode.NONE)
    prefixed = sort in {SortMode.TIMESTAMP, SortMode.STUDY_UID}
    names = selection.choice(by_option(FileNames), FileNames.INSTANCE_UID)
    return OutputOptions(
        directory=_text(selection, "--output-directory", "."),
        bit_preserving=selection.has("--bit-preserving"),
        with_file_meta=not selection.has("--write-dataset"),
        transfer_syntax=selection.choice(by_option(WriteTransferSyntax), WriteTransferSyntax.SAME),
        new_vrs=not selection.has("--disable-new-vr"),
        group_lengths=selection.choice(by_option(GroupLengths), GroupLengths.RECALCULATE),
        sequence_lengths=selection.choice(by_option(SequenceLengths), SequenceLengths.EXPLICIT),
        padding=None if padding is None else Padding(file=padding[0], item=padding[1]),
        convert_un=selection.has("--convert-un"),
        compression_level=COMPRESSION_LEVEL_DEFAULT if level is None else level,
        sort=sort,
        sort_prefix=_text(selection, sort.value, "") if prefixed else "",
        file_names=FileNames.TIME if selection.has("--timenames") else names,
        extension=_text(selection, "--filename-extension", ""),
    )


def _event_options(selection: Selection) -> EventOptions:
    return EventOptions(
        on_reception=selection.text("--exec-on-reception"),
        on_study_end=selection.text("--exec-on-eostudy"),
        rename_on_study_end=selection.has("--rename-on-eostudy"),
        study_timeout=selection.integer("--eostudy-timeout"),
        synchronous=selection.has("--exec-sync"),
    )


def _warnings(command_line: CommandLine, *, inetd: bool) -> tuple[str, ...]:
    if inetd and command_line.parameters:
        return ("the port is not needed with --inetd and is not used",)
    return ()
