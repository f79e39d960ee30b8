"""The settings: every table of the file as a frozen model, every key with its meaning, bounds and default.

This is the one place where a setting is defined: the reader of files, variables and flags, the reference page
and `check-config` all go through these models. How a setting is described stands in `setting_fields.py`.

Strict typing is meant: `port = "11112"` and `sync = 1` in a file are mistakes, and saying so is kinder than
guessing.
"""

from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PrivateAttr

from stowkeeper.app import limits
from stowkeeper.app.setting_fields import About, Origin, Table, is_among
from stowkeeper.app.setting_values import (
    AbstractSyntaxes,
    AETitle,
    AETitles,
    FileMode,
    FolderModeOrNone,
    Host,
    MaximumLength,
    Networks,
    Size,
    SomePath,
    SOPClassList,
    TransferSyntaxes,
    TransferSyntaxList,
    entries,
)
from stowkeeper.app.settings_of_dicomweb import DICOMwebSettings
from stowkeeper.app.settings_of_events import EventsSettings, EventTargetSettings, ExportFolderSettings
from stowkeeper.app.settings_of_forwarding import ForwardingRuleSettings
from stowkeeper.app.settings_of_log import LogSettings
from stowkeeper.app.settings_of_origin_servers import OriginServerSettings
from stowkeeper.app.settings_of_peers import AE_TITLE_TEXT, NETWORKS_TEXT, DuplicatesPolicy, Peer
from stowkeeper.app.settings_of_profiles import Profile
from stowkeeper.app.settings_of_retention import RetentionRuleSettings
from stowkeeper.app.settings_of_services import CommitmentSettings, HTTPSettings, JobsSettings
from stowkeeper.app.settings_of_tls import TLSSettings
from stowkeeper.app.settings_of_tracing import TracingSettings
from stowkeeper.archive.limits import SYNC_EVERY_BYTES, UNCATALOGUED_MAX, WORKER_THREADS
from stowkeeper.archive.modes import folder_mode
from stowkeeper.durable.limits import RESERVE_SIZE, SLOT_POOL_SIZE
from stowkeeper.net.limits import (
    KEEP_ALIVE_IDLE_SECONDS,
    KEEP_ALIVE_INTERVAL_SECONDS,
    KEEP_ALIVE_PROBES,
    SLOW_PROGRESS_BYTES_PER_SECOND,
)

GB = 10**9

Seconds = Annotated[float, Field(ge=limits.SECONDS_MIN, le=limits.SECONDS_MAX, allow_inf_nan=False)]
SecondsOrOff = Annotated[float, Field(ge=0, le=limits.SECONDS_MAX, allow_inf_nan=False)]

_AE_TITLES = "a list of AE titles"
_CLASSES = "a list of SOP class UIDs or keywords"
_SYNTAXES = "a list of transfer syntax UIDs or keywords"


class DicomSettings(Table):
    """The listener and its associations: address, limits and timeouts."""

    host: Annotated[
        Host,
        About(
            "Address to listen on. `0.0.0.0` is every IPv4 address of the machine, `::` every address.",
            allowed="a host name or an IP address",
            flag="--host",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Field(ge=0, le=65535),
        About("TCP port to listen on. 0 takes any free one; the ready line tells which.", flag="--port"),
    ] = 11112
    ae_title: Annotated[
        AETitle,
        About("AE title of the server.", allowed=AE_TITLE_TEXT, flag="--ae-title"),
    ] = "STOWKEEPER"
    maximum_length: Annotated[
        MaximumLength,
        About(
            "Largest P-DATA-TF variable field that peers may send, in bytes (PS3.8 §D.1); 0 sets no limit."
            " Memory does not depend on it.",
            allowed=f"0, or {limits.MAXIMUM_LENGTH_MIN} to {limits.MAXIMUM_LENGTH_MAX}",
        ),
    ] = 262_144
    associations_max: Annotated[
        int,
        Field(ge=1, le=limits.ASSOCIATIONS_MAX),
        About(
            "Associations at the same time. A further one is rejected for now (2,3,2: local limit exceeded)."
        ),
    ] = 500
    associations_per_peer_max: Annotated[
        int,
        Field(ge=1, le=limits.ASSOCIATIONS_MAX),
        About(
            "Associations at the same time from one IP address. A further one is rejected for now (2,3,2)."
        ),
    ] = 100
    operations_window: Annotated[
        int,
        Field(ge=1, le=limits.OPERATIONS_WINDOW_MAX),
        About(
            "Operations that a peer may have outstanding on one association, when it asks for more than one"
            " (PS3.7 §D.3.3.3). 1 grants none beside the one in progress."
        ),
    ] = 8
    association_request_seconds: Annotated[
        Seconds,
        About(
            "Time from the TCP connection to the whole A-ASSOCIATE-RQ, and time for a peer to close the connection"
            " after a release, a rejection or an abort (the ARTIM timer, PS3.8 §9.1.4). Then it is closed from here."
        ),
    ] = 30.0
    idle_seconds: Annotated[
        SecondsOrOff,
        About("Time an association may be idle between two messages before it is aborted; 0 waits for ever."),
    ] = 600.0
    message_seconds: Annotated[
        Seconds,
        About("Time without a byte within a message that has begun, after which the association is aborted."),
    ] = 60.0
    message_bytes_per_second_min: Annotated[
        int,
        Field(ge=0, le=limits.BYTES_PER_SECOND_MAX),
        About(
            "Slowest pace of a message, in bytes a second over `message_seconds`. A peer below it drips bytes to"
            " hold its place, and is aborted. 0 asks for no pace."
        ),
    ] = SLOW_PROGRESS_BYTES_PER_SECOND
    send_seconds: Annotated[
        Seconds,
        About("Time in which a peer must take what is sent to it. One that never reads is cut off."),
    ] = 60.0
    drain_seconds: Annotated[
        SecondsOrOff,
        About(
            "Time that associations get to finish the instance in flight when the server is told to stop."
            " Then they are aborted."
        ),
    ] = 30.0
    proxy_protocol_from: Annotated[
        Networks,
        About(
            "Where proxies connect from that tell the address of their client by the PROXY protocol, version 1 or 2. That"
            " address then counts as the peer's everywhere. A connection from here that does not begin with such a header"
            " is closed; one from elsewhere that does is aborted. Empty: there is no such proxy. See [proxy.md](proxy.md).",
            allowed=NETWORKS_TEXT,
        ),
    ] = ()
    tcp_keep_alive_seconds: Annotated[
        int,
        Field(ge=0, le=int(limits.SECONDS_MAX)),
        About(
            "Silence on a connection before the system asks whether the peer is still there; 0 never asks."
        ),
    ] = KEEP_ALIVE_IDLE_SECONDS
    tcp_keep_alive_interval_seconds: Annotated[
        int,
        Field(ge=1, le=int(limits.SECONDS_MAX)),
        About("Time between two such questions that stay unanswered."),
    ] = KEEP_ALIVE_INTERVAL_SECONDS
    tcp_keep_alive_probes: Annotated[
        int,
        Field(ge=1, le=limits.KEEP_ALIVE_PROBES_MAX),
        About("Unanswered questions after which the connection counts as lost."),
    ] = KEEP_ALIVE_PROBES


class NegotiationSettings(Table):
    """What is accepted in a presentation context: what the keys say, or a profile in place of them all."""

    profile: Annotated[
        str,
        About(
            "Name of the `[[profiles]]` entry that decides for everyone whose `[[peers]]` entry names no other. Then the"
            " keys below have no effect. Empty: they decide.",
            allowed="the name of a profile",
        ),
    ] = ""
    abstract_syntaxes: Annotated[
        AbstractSyntaxes,
        About(
            "Abstract syntaxes to accept. `all`: every one that is not known to be something other than storage,"
            " private and future ones too. `standard`: the storage classes of the standard, retired ones too."
            " Both accept storage commitment too. A list: these alone. Verification is always accepted.",
            allowed=f'`"all"`, `"standard"`, or {_CLASSES}',
        ),
    ] = "all"
    refused_abstract_syntaxes: Annotated[
        SOPClassList,
        About("Abstract syntaxes to refuse although the setting above accepts them.", allowed=_CLASSES),
    ] = ()
    transfer_syntaxes: Annotated[
        TransferSyntaxes,
        About(
            "Transfer syntaxes to accept. `all`: every one that the conformance statement lists.",
            allowed=f'`"all"`, or {_SYNTAXES}',
        ),
    ] = "all"
    accept_unknown_transfer_syntaxes: Annotated[
        bool,
        About(
            "Accept a transfer syntax that Stowkeeper does not know too, when it is the only kind proposed in a"
            " context. Such data sets are kept as they come, and nothing in them is checked."
        ),
    ] = False
    choice: Annotated[
        Literal["as-proposed", "preference"],
        About(
            "Which of several acceptable transfer syntaxes is chosen: the first in the order of the proposal, or"
            " the first of `preference` that is proposed."
        ),
    ] = "as-proposed"
    preference: Annotated[
        TransferSyntaxList,
        About(
            'Transfer syntaxes in falling preference, for `choice = "preference"`. What is not listed comes'
            " after, as proposed.",
            allowed=_SYNTAXES,
        ),
    ] = ()


class AccessSettings(Table):
    """Who may open an association. All rules given must be met."""

    check_called_ae_title: Annotated[
        bool,
        About(
            "Reject an association that calls another AE title than `dicom.ae_title` or one of"
            " `called_ae_titles` (1,1,7: called AE title not recognized)."
        ),
    ] = False
    called_ae_titles: Annotated[
        AETitles,
        About("Further AE titles that the server answers to when it checks them.", allowed=_AE_TITLES),
    ] = ()
    calling_ae_titles: Annotated[
        AETitles,
        About(
            "AE titles that may call (others: 1,1,3: calling AE title not recognized). Empty: any.",
            allowed=_AE_TITLES,
        ),
    ] = ()
    addresses: Annotated[
        Networks,
        About(
            "Addresses and networks that may call. Empty: any. Names are not looked up.",
            allowed=NETWORKS_TEXT,
        ),
    ] = ()
    only_known_peers: Annotated[
        bool,
        About(
            "Reject an association from anyone who is no peer: neither by a `[[peers]]` entry nor by one that"
            " `stowkeeper peers` or the HTTP interface put into the archive's database."
        ),
    ] = False


class StorageSettings(Table):
    """How instances are kept, and when none is taken in."""

    duplicates: Annotated[
        DuplicatesPolicy,
        About(
            "What happens when an instance comes again with other bytes. `keep`: both versions stay and the newer"
            " is current. `replace`: as `keep`, and the older is removed after `replace_grace_hours`. `refuse`:"
            " the newcomer is answered 0111H. The same bytes again are always Success and kept once."
        ),
    ] = "keep"
    preamble: Annotated[
        Literal["zero", "tiff", "keep", "refuse"],
        About(
            "What becomes of the 128 bytes that a file begins with, where it comes by HTTP or by `import`; they may hold"
            " something else than DICOM. `zero`: they are not kept. `tiff`: they are kept where they begin a TIFF file,"
            " as those of slides do. `keep`: they are kept as they come. `refuse`: a file where they are not zeros is"
            " refused."
        ),
    ] = "zero"
    replace_grace_hours: Annotated[
        float,
        Field(ge=0, le=limits.GRACE_HOURS_MAX, allow_inf_nan=False),
        About("Hours that a replaced version stays before it is removed."),
    ] = 72.0
    slot_pool_size: Annotated[
        int,
        Field(ge=1, le=limits.SLOT_POOL_MAX),
        About(
            "Empty files prepared for instances to come. A burst of more small instances than this is slower."
        ),
    ] = SLOT_POOL_SIZE
    file_mode: Annotated[
        FileMode,
        About(
            "Permissions of new files, whatever the umask says: stored files, log files, and the catalog of a new archive."
            " `owner` is 0600, `group` 0640, `world` 0644, which lets every user of the machine read them.",
            allowed='`"owner"`, `"group"`, `"world"`, or text of octal digits, such as `"0640"`: the owner reads and writes,'
            " nobody executes",
            shape="mode",
        ),
    ] = 0o640
    folder_mode: Annotated[
        FolderModeOrNone,
        About(
            "Permissions of new folders: those of a new archive and of its log. `owner` is 0700, `group` 0750, `world` 0755."
            " Empty: as `file_mode`, with the right to enter for whoever may read. In an archive that is there new folders and"
            " a new catalog follow its folder `objects`; the depot is always the owner's alone.",
            allowed='`""`, `"owner"`, `"group"`, `"world"`, or text of octal digits, such as `"0750"`: the owner reads, writes'
            " and enters",
            shape="mode",
        ),
    ] = None
    uncatalogued_max: Annotated[
        int,
        Field(ge=1, le=limits.UNCATALOGUED_MAX_HIGHEST),
        About(
            "Instances that may be on their way at a time, from the beginning of each until it is in the catalog: so no"
            " more than this many are ever kept and not yet listed. Beyond it senders are answered A700H until the"
            " catalog has caught up. Below the number of instances that peers send at the same time it refuses some"
            " of them."
        ),
    ] = UNCATALOGUED_MAX
    refuse_instance_below: Annotated[
        Size,
        Field(ge=0, le=limits.DISK_BYTES_MAX),
        About("Free disk space below which every instance is answered A700H.", shape="size"),
    ] = 2 * GB
    refuse_association_below: Annotated[
        Size,
        Field(ge=0, le=limits.DISK_BYTES_MAX),
        About(
            "Free disk space below which an association that proposes only storage is rejected (2,3,2), and a"
            " mixed one gets its storage contexts refused. Verification goes on.",
            shape="size",
        ),
    ] = 1 * GB
    refuse_instance_below_inodes: Annotated[
        int,
        Field(ge=0, le=limits.DISK_INODES_MAX),
        About(
            "Free inodes below which every instance is answered A700H. Where none are counted it has no effect."
        ),
    ] = 20_000
    refuse_association_below_inodes: Annotated[
        int,
        Field(ge=0, le=limits.DISK_INODES_MAX),
        About("Free inodes below which storage is not negotiated, as for `refuse_association_below`."),
    ] = 10_000
    reserve_size: Annotated[
        Size,
        Field(ge=0, le=limits.DISK_BYTES_MAX),
        About(
            "Disk space set aside, and released when the catalog or the shelf meets a full disk, so that what was"
            " answered can still be finished.",
            shape="size",
        ),
    ] = RESERVE_SIZE
    sync_every: Annotated[
        Size,
        Field(ge=limits.SYNC_EVERY_MIN, le=limits.DISK_BYTES_MAX),
        About(
            "A large instance is synced each time this much of it came, so that the last sync is short.",
            shape="size",
        ),
    ] = SYNC_EVERY_BYTES
    worker_threads: Annotated[
        int,
        Field(ge=1, le=limits.WORKER_THREADS_MAX),
        About(
            "Threads that write and sync. More than processors pay, since syncs of several share one commit of"
            " the file system's journal."
        ),
    ] = WORKER_THREADS

    @property
    def modes(self) -> tuple[int, int]:
        """Permissions of new files and of the folders in which they stand."""
        return self.file_mode, folder_mode(self.file_mode) if self.folder_mode is None else self.folder_mode


class Settings(Table):
    """All settings in force. Made by `load_settings`, never changed: a reload makes new ones."""

    archive: Annotated[
        SomePath,
        About(
            "Folder of the archive. It is made when it does not exist; one that holds other things is refused.",
            allowed="a path",
            flag="--archive",
            shape="path",
        ),
    ] = "./archive"
    archive_must_exist: Annotated[
        bool,
        About(
            "Whether a folder without an archive is refused, in place of making one there: for an archive on a disk of its own, without"
            " which a start would begin an empty one in the folder that the disk is mounted on. It has no effect in a"
            " `stowkeeper.toml` within the archive, which is away with the disk."
        ),
    ] = False
    sync: Annotated[
        bool,
        About(
            "Sync every instance to the disk before its Success. `false` is faster and gives up the promise: what"
            " was answered in the last seconds before a power cut can be lost, and the catalog be damaged, which"
            " `stowkeeper rebuild` makes anew. It holds for `serve`; other commands always sync.",
            flag="--no-sync",
            flag_help="Answer Success before the instance is synced: faster, but a power cut can lose it.",
        ),
    ] = True
    shared: Annotated[
        bool,
        About("Let several server processes receive into the archive at the same time."),
    ] = False
    dicom: DicomSettings = DicomSettings()
    tls: TLSSettings = TLSSettings()
    negotiation: NegotiationSettings = NegotiationSettings()
    access: AccessSettings = AccessSettings()
    storage: StorageSettings = StorageSettings()
    http: HTTPSettings = HTTPSettings()
    dicomweb: DICOMwebSettings = DICOMwebSettings()
    jobs: JobsSettings = JobsSettings()
    commitment: CommitmentSettings = CommitmentSettings()
    events: EventsSettings = EventsSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()
    profiles: Annotated[
        tuple[Profile, ...],
        BeforeValidator(entries),
        About("Negotiation profiles, one `[[profiles]]` table each.", allowed="tables"),
    ] = ()
    peers: Annotated[
        tuple[Peer, ...],
        BeforeValidator(entries),
        About("Peers with rules of their own, one `[[peers]]` table each.", allowed="tables"),
    ] = ()
    origin_servers: Annotated[
        tuple[OriginServerSettings, ...],
        BeforeValidator(entries),
        About(
            "DICOMweb servers that instances are forwarded to, one `[[origin_servers]]` table each.",
            allowed="tables",
        ),
    ] = ()
    forwarding_rules: Annotated[
        tuple[ForwardingRuleSettings, ...],
        BeforeValidator(entries),
        About("What is sent on, and where to, one `[[forwarding_rules]]` table each.", allowed="tables"),
    ] = ()
    retention_rules: Annotated[
        tuple[RetentionRuleSettings, ...],
        BeforeValidator(entries),
        About(
            "What is removed when it is old enough, one `[[retention_rules]]` table each. Without one nothing is.",
            allowed="tables",
        ),
    ] = ()
    event_targets: Annotated[
        tuple[EventTargetSettings, ...],
        BeforeValidator(entries),
        About("Who is told of events, one `[[event_targets]]` table each.", allowed="tables"),
    ] = ()
    export_folders: Annotated[
        tuple[ExportFolderSettings, ...],
        BeforeValidator(entries),
        About(
            "Folders with a copy of what is received, one `[[export_folders]]` table each.", allowed="tables"
        ),
    ] = ()

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)
    _settings_file: str = PrivateAttr(default="")

    def model_post_init(self, context: object, /) -> None:
        """Take over where the values came from, which the reader passes as the context of validation."""
        if isinstance(context, dict):
            self._origins = context["origins"]
            self._settings_file = context["file"]

    @property
    def archive_path(self) -> Path:
        """The folder of the archive."""
        return Path(self.archive)

    @property
    def log_directory(self) -> Path:
        """The folder of the log files."""
        return Path(self.log.directory) if self.log.directory else self.archive_path / "log"

    @property
    def settings_file(self) -> str:
        """The path of the settings file that was read; empty when there was none."""
        return self._settings_file

    def origin_of(self, key: str) -> Origin:
        """Where the value of a setting, such as `dicom.port`, came from."""
        return self._origins.get(key, Origin.of_default())

    def peer_of(self, calling_ae_title: str, address: str) -> Peer | None:
        """Return the first peer that matches an association, by calling AE title and IP address."""
        return next((peer for peer in self.peers if peer.matches(calling_ae_title, address)), None)

    def duplicates_policy_of(self, calling_ae_title: str, address: str) -> DuplicatesPolicy:
        """Return the policy for an instance that comes again with other bytes on such an association."""
        peer = self.peer_of(calling_ae_title, address)
        return self.storage.duplicates if peer is None or peer.duplicates is None else peer.duplicates

    def profile_of(self, calling_ae_title: str, address: str) -> str:
        """Return the name of the negotiation profile for such an association; empty for none."""
        peer = self.peer_of(calling_ae_title, address)
        return self.negotiation.profile if peer is None or peer.profile is None else peer.profile

    def reloaded(self, new: "Settings", names: AbstractSet[str]) -> "Settings":
        """Return these settings with the tables and keys in `names`, and their origins, as `new` has them."""
        renewed_tables = {name: getattr(new, name) for name in names if "." not in name}
        for table, _, name in (key.partition(".") for key in names if "." in key):
            before = renewed_tables.get(table, getattr(self, table))
            value = getattr(getattr(new, table), name)
            renewed_tables[table] = before.model_copy(update={name: value})
        merged = self.model_copy(update=renewed_tables)
        merged._origins = {  # noqa: SLF001 - a copy of itself
            key: origin
            for settings, renewed in ((self, False), (new, True))
            for key, origin in settings._origins.items()  # noqa: SLF001 - of its own class
            if is_among(key, names) is renewed
        }
        merged._settings_file = new._settings_file  # noqa: SLF001 - likewise
        return merged
