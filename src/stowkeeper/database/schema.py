"""The schema: every table and column, with what it means. Queries are built from these tables.

The tables come into being by the migrations beside this file; a test keeps both equal.

Keys ending in `_key` are integers that mean nothing outside this file. UIDs, receipt ids and association ids
are text. Times are UTC in ISO 8601 with microseconds and a Z, so that their order as text is their order in
time. Booleans are 0 and 1.

An index whose keys have no order in time costs a page for each row, and more as it outgrows the caches. Only
two are like that: `versions.path`, though within the series that arrive just now, and that of the instances
by UID. The latter therefore holds 48 bits of a hash instead of the UID, a quarter of the size.
"""

from collections.abc import Collection
from hashlib import blake2b

from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

VERSION_STATES = ("kept", "superseded", "removing", "removed", "damaged")
RECEIPT_OUTCOMES = ("stored", "identical", "conflict")
ANSWERS = ("known", "unknown")
JOB_STATES = ("pending", "running", "paused", "retry", "success", "failure", "cancelled")
JOB_WISHES = ("", "pause", "cancel")
COMMITMENT_ROLES = ("provider", "user")
COMMITMENT_STATES = (
    # Of a provider: received, checked (the outcomes are certain), reported (the peer has the report), undelivered (given
    # up for now).
    "received",
    "checked",
    "reported",
    "undelivered",
    # Of a user: requested (about to be asked, or asking), accepted (the peer answered Success), refused (it answered
    # otherwise), committed (all of it), partial, failed (none of it), expired (no report came in time), cancelled.
    "requested",
    "accepted",
    "refused",
    "committed",
    "partial",
    "failed",
    "expired",
    "cancelled",
)
COMMITMENT_OUTCOMES = ("", "committed", "failed", "unasked")
FORWARD_STATES = ("waiting", "queued", "sent", "failed", "dropped")
CREDENTIAL_KINDS = ("token", "password")
CREDENTIAL_ROLES = ("none", "read", "operate", "admin")

ON_SHELF = "state IN ('kept', 'superseded', 'removing')"
"""The versions whose path names their file. The partial unique index on the path has this very condition; a
query that wants the index must say it in the same words."""

LEAVING = "state IN ('superseded', 'removing')"
"""The versions that a removal is due for, sooner or later; the condition of another partial index."""

DAMAGED = "state = 'damaged'"
"""The versions whose file went bad, few of a million; the condition of a third one."""

WAITING = "state IN ('pending', 'retry')"
"""The jobs that are to be started, now or later; the condition of the index that the engine looks through."""

RUNNING = "state = 'running'"
"""The jobs that somebody has taken; the condition of another one."""

OPEN_FORWARDS = "state IN ('waiting', 'queued', 'failed')"
"""The forwards that are not at their end; the condition of the index that they are looked up and counted by."""

FORWARDS_IN_JOB = "state IN ('queued', 'failed')"
"""The forwards that an item of a job may still be about; the condition of another one."""


def uid_hash(uid: str) -> int:
    """Return the 48 bits that an instance is found by. Few instances share theirs, and nobody can make many."""
    return int.from_bytes(blake2b(uid.encode("utf-8", "surrogatepass"), digest_size=6).digest(), "big")


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_is_known")


def _described() -> tuple[Column[str], Column[str]]:
    """Return the columns that say which receipt the attributes of a row come from: the newest one."""
    return (
        Column(
            "described_at",
            Text,
            nullable=False,
            comment="time received of the version the attributes come from",
        ),
        Column(
            "described_by",
            Text,
            nullable=False,
            comment="receipt id of that version; both '' after the last left",
        ),
    )


archive = Table(
    "archive",
    metadata,
    Column("archive_key", Integer, CheckConstraint("archive_key = 1", name="there_is_one"), primary_key=True),
    Column("archive_id", Text, comment="the UUID in the file archive.id; null until the archive is set up"),
    Column("created_at", Text, nullable=False, comment="when this database was made"),
    Column("created_by", Text, nullable=False, comment="version of Stowkeeper that made it"),
    Column("migrated_at", Text, nullable=False, comment="when its schema was last changed"),
    Column(
        "migrated_by",
        Text,
        nullable=False,
        comment="version of Stowkeeper that changed it, named to older ones",
    ),
)

# The patient tree (PS3.4 §C.6.2). Each row describes itself by the newest version received below it.

patients = Table(
    "patients",
    metadata,
    Column("patient_key", Integer, primary_key=True),
    Column("patient_id", Text, nullable=False, comment="(0010,0020); '' where the instances have none"),
    Column("issuer_of_patient_id", Text, nullable=False, comment="(0010,0021) or ''; part of the identity"),
    Column(
        "study_instance_uid",
        Text,
        nullable=False,
        comment="the one study of a patient without Patient ID, else '': two such studies are two patients",
    ),
    Column("patient_name", Text, comment="(0010,0010)"),
    Column("patient_birth_date", Text, comment="(0010,0030)"),
    Column("patient_birth_time", Text, comment="(0010,0032)"),
    Column("patient_sex", Text, comment="(0010,0040)"),
    Column("other_patient_ids", Text, comment="(0010,1000)"),
    Column("other_patient_names", Text, comment="(0010,1001)"),
    Column("ethnic_group", Text, comment="(0010,2160)"),
    Column("patient_comments", Text, comment="(0010,4000)"),
    *_described(),
    UniqueConstraint("patient_id", "issuer_of_patient_id", "study_instance_uid", name="patients_identity"),
)

studies = Table(
    "studies",
    metadata,
    Column("study_key", Integer, primary_key=True),
    Column("study_instance_uid", Text, nullable=False, comment="(0020,000D)"),
    Column(
        "patient_key",
        Integer,
        ForeignKey("patients.patient_key"),
        comment="null after its last version was removed",
    ),
    Column("study_date", Text, comment="(0008,0020)"),
    Column("study_time", Text, comment="(0008,0030)"),
    Column("accession_number", Text, comment="(0008,0050)"),
    Column("study_id", Text, comment="(0020,0010)"),
    Column("study_description", Text, comment="(0008,1030)"),
    Column("referring_physician_name", Text, comment="(0008,0090)"),
    Column("name_of_physicians_reading_study", Text, comment="(0008,1060)"),
    Column("admitting_diagnoses_description", Text, comment="(0008,1080)"),
    Column("patient_age", Text, comment="(0010,1010)"),
    Column("patient_size", Text, comment="(0010,1020)"),
    Column("patient_weight", Text, comment="(0010,1030)"),
    Column("occupation", Text, comment="(0010,2180)"),
    Column("additional_patient_history", Text, comment="(0010,21B0)"),
    *_described(),
    UniqueConstraint("study_instance_uid", name="studies_uid"),
    Index("studies_of_patient", "patient_key"),
)

series = Table(
    "series",
    metadata,
    Column("series_key", Integer, primary_key=True),
    Column("study_key", Integer, ForeignKey("studies.study_key"), nullable=False),
    Column(
        "series_instance_uid",
        Text,
        nullable=False,
        comment="(0020,000E), '' where instances of a study have none; one UID in two studies makes two rows",
    ),
    Column("modality", Text, comment="(0008,0060)"),
    Column("series_number", Integer, comment="(0020,0011)"),
    Column("series_description", Text, comment="(0008,103E)"),
    Column("series_date", Text, comment="(0008,0021)"),
    Column("series_time", Text, comment="(0008,0031)"),
    Column("manufacturer", Text, comment="(0008,0070)"),
    Column("institution_name", Text, comment="(0008,0080)"),
    Column("station_name", Text, comment="(0008,1010)"),
    Column("institutional_department_name", Text, comment="(0008,1040)"),
    Column("performing_physician_name", Text, comment="(0008,1050)"),
    Column("operators_name", Text, comment="(0008,1070)"),
    Column("manufacturer_model_name", Text, comment="(0008,1090)"),
    Column("body_part_examined", Text, comment="(0018,0015)"),
    Column("protocol_name", Text, comment="(0018,1030)"),
    Column("frame_of_reference_uid", Text, comment="(0020,0052)"),
    Column("laterality", Text, comment="(0020,0060)"),
    Column("performed_procedure_step_start_date", Text, comment="(0040,0244)"),
    Column("performed_procedure_step_start_time", Text, comment="(0040,0245)"),
    Column("performed_procedure_step_id", Text, comment="(0040,0253)"),
    Column("performed_procedure_step_description", Text, comment="(0040,0254)"),
    *_described(),
    UniqueConstraint("series_instance_uid", "study_key", name="series_uid"),
    Index("series_of_study", "study_key"),
)

instances = Table(
    "instances",
    metadata,
    Column("instance_key", Integer, primary_key=True, comment="the version_key of its first version"),
    Column("sop_instance_uid", Text, nullable=False, comment="(0008,0018), once in this table"),
    Column(
        "current_version_key",
        Integer,
        comment="the newest kept version that is held, by the order in which they came, else the newest that is kept, null when"
        " none is; without a foreign key, since versions refer to instances already",
    ),
    Column("uid_hash", Integer, nullable=False, comment="`uid_hash` of the UID; instances are found by it"),
    Index("instances_uid_hash", "uid_hash"),
)

versions = Table(
    "versions",
    metadata,
    Column("version_key", Integer, primary_key=True, comment="the receipt_key of the receipt in its file"),
    Column("instance_key", Integer, ForeignKey("instances.instance_key"), nullable=False),
    Column(
        "series_key",
        Integer,
        ForeignKey("series.series_key"),
        comment="null for instances outside of studies",
    ),
    Column("sop_class_uid", Text, nullable=False, comment="(0008,0016)"),
    Column("transfer_syntax_uid", Text, nullable=False, comment="(0002,0010)"),
    Column("path", Text, nullable=False, comment="of the file, relative to the archive"),
    Column("file_size", Integer, nullable=False, comment="bytes of the file, its head included"),
    Column(
        "state",
        Text,
        _one_of("state", VERSION_STATES),
        nullable=False,
        comment="kept: its file is on the shelf. superseded: so too, and due for removal unless held. removing: its file"
        " is gone or about to go. removed: gone. damaged: its bytes no longer fit the receipt; never deleted by us",
    ),
    Column(
        "conflict",
        Integer,
        nullable=False,
        comment="1: another version of the instance, not removed, differs",
    ),
    Column("state_since", Text, comment="time of the last change of state; null while it is as received"),
    Column("removal_due_at", Text, comment="when a superseded version may be removed"),
    Column("instance_number", Integer, comment="(0020,0013)"),
    Column("number_of_frames", Integer, comment="(0028,0008)"),
    Column("rows", Integer, comment="(0028,0010)"),
    Column("columns", Integer, comment="(0028,0011)"),
    Column("bits_allocated", Integer, comment="(0028,0100)"),
    Column("specific_character_set", Text, comment="(0008,0005)"),
    Column("image_type", Text, comment="(0008,0008)"),
    Column("instance_creation_date", Text, comment="(0008,0012)"),
    Column("instance_creation_time", Text, comment="(0008,0013)"),
    Column("acquisition_date", Text, comment="(0008,0022)"),
    Column("content_date", Text, comment="(0008,0023)"),
    Column("acquisition_date_time", Text, comment="(0008,002A)"),
    Column("acquisition_time", Text, comment="(0008,0032)"),
    Column("content_time", Text, comment="(0008,0033)"),
    Column("timezone_offset_from_utc", Text, comment="(0008,0201)"),
    Column("acquisition_number", Integer, comment="(0020,0012)"),
    Column("observation_date_time", Text, comment="(0040,A032)"),
    Column("completion_flag", Text, comment="(0040,A491)"),
    Column("verification_flag", Text, comment="(0040,A493)"),
    Column("document_title", Text, comment="(0042,0010)"),
    Column("mime_type_of_encapsulated_document", Text, comment="(0042,0012)"),
    Column("content_label", Text, comment="(0070,0080)"),
    Column("content_description", Text, comment="(0070,0081)"),
    Column("presentation_creation_date", Text, comment="(0070,0082)"),
    Column("presentation_creation_time", Text, comment="(0070,0083)"),
    Column("content_creator_name", Text, comment="(0070,0084)"),
    Column("structure_set_label", Text, comment="(3006,0002)"),
    Column("structure_set_date", Text, comment="(3006,0008)"),
    Column("structure_set_time", Text, comment="(3006,0009)"),
    Column("rt_plan_label", Text, comment="(300A,0002)"),
    Column("rt_plan_date", Text, comment="(300A,0006)"),
    Column("rt_plan_time", Text, comment="(300A,0007)"),
    Column("images_in_acquisition", Integer, comment="(0020,1002)"),
    Column("number_of_study_related_instances", Integer, comment="(0020,1208)"),
    Column("number_of_series_related_instances", Integer, comment="(0020,1209)"),
    Index("versions_of_instance", "instance_key"),
    Index("versions_of_series", "series_key", "instance_key"),
    Index("versions_path", "path", unique=True, sqlite_where=text(ON_SHELF)),
    Index("versions_in_conflict", "instance_key", sqlite_where=text("conflict = 1")),
    Index("versions_leaving", "removal_due_at", sqlite_where=text(LEAVING)),
    Index("versions_damaged", "version_key", sqlite_where=text(DAMAGED)),
)

receipts = Table(
    "receipts",
    metadata,
    Column(
        "receipt_key",
        Integer,
        primary_key=True,
        comment="given in the order of commits; rows are never deleted",
    ),
    Column("receipt_id", Text, nullable=False, comment="32 hexadecimal digits, the time received first"),
    Column(
        "version_key",
        Integer,
        ForeignKey("versions.version_key"),
        nullable=False,
        comment="the version it proves",
    ),
    Column(
        "outcome",
        Text,
        _one_of("outcome", RECEIPT_OUTCOMES),
        nullable=False,
        comment="stored: made the version. conflict: made it beside another that differs. identical: the same digest,"
        " class and transfer syntax was there and had been read from the medium; no file of its own is kept",
    ),
    Column("received_at", Text, nullable=False, comment="when the last byte was there"),
    Column("received_by", Text, nullable=False, comment="C-STORE, STOW-RS or import"),
    Column("calling_ae_title", Text, nullable=False),
    Column("called_ae_title", Text, nullable=False),
    Column("peer_address", Text, nullable=False),
    Column("association_id", Text, nullable=False, comment="'' where it came without one"),
    Column("digest", Text, nullable=False, comment="BLAKE3-256 of the data set's bytes, hexadecimal"),
    Column("data_set_length", Integer, nullable=False, comment="bytes of the data set"),
    Column(
        "answer",
        Text,
        _one_of("answer", ANSWERS),
        nullable=False,
        comment="known: Success was handed to the network; whether it reached the sender only the sender knows."
        " unknown: nothing tells that it was: the connection was gone first, a crash came between, or the row was made"
        " again from the file",
    ),
    Column(
        "verdicts",
        Text,
        comment="JSON list of what could not be read or is against the standard; null when none",
    ),
    UniqueConstraint("receipt_id", name="receipts_id"),
    Index("receipts_of_version", "version_key"),
    Index("receipts_received", "received_at"),
)

holds = Table(
    "holds",
    metadata,
    Column("version_key", Integer, ForeignKey("versions.version_key"), primary_key=True),
    Column(
        "reason",
        Text,
        primary_key=True,
        comment="who holds it and why, in words; each reason is released alone",
    ),
    Column("held_since", Text, nullable=False),
    sqlite_with_rowid=False,
)

changes = Table(
    "changes",
    metadata,
    Column(
        "seq",
        Integer,
        primary_key=True,
        comment="grows with each commit, never given twice: consumers' cursor",
    ),
    Column("at", Text, nullable=False, comment="when the transaction began"),
    Column(
        "kind",
        Text,
        nullable=False,
        comment="received: a receipt was finished (once a receipt; a first version is current from here on). current:"
        " the pointer moved. superseded, removing, removed, damaged: the version's state. held, released: its holds."
        " patient: the study moved to another patient. study_started, study_quiet, study_late: see study_events; the"
        " receipt and the version are those that arrived last",
    ),
    Column(
        "receipt_key", Integer, ForeignKey("receipts.receipt_key"), nullable=False, comment="what it came by"
    ),
    Column(
        "version_key",
        Integer,
        ForeignKey("versions.version_key"),
        comment="what it is about; null: none is current",
    ),
    Column(
        "previous_version_key",
        Integer,
        comment="of kind current: the version that was current before, if any",
    ),
    Column("detail", Text, comment="the reason in words, without patient data"),
    Index("changes_received", "receipt_key", unique=True, sqlite_where=text("kind = 'received'")),
    sqlite_autoincrement=True,
)

# Events: what follows from the changes, for other systems.

consumers = Table(
    "consumers",
    metadata,
    Column("name", Text, primary_key=True, comment="who follows the changes: studies, or target:NAME"),
    Column("seq", Integer, nullable=False, comment="number of the last change that it has dealt with"),
    sqlite_with_rowid=False,
)

study_watches = Table(
    "study_watches",
    metadata,
    Column("study_key", Integer, ForeignKey("studies.study_key"), primary_key=True),
    Column("revision", Integer, nullable=False, comment="1, and one more with each late arrival"),
    Column("revision_began_at", Text, nullable=False, comment="first arrival of this revision"),
    Column("last_arrival_at", Text, nullable=False, comment="when the last arrival was listed"),
    Column("last_version_key", Integer, nullable=False, comment="what arrived last"),
    Column("arrivals", Integer, nullable=False, comment="versions that came in this revision"),
    Column("quiet_due_at", Text, comment="when it is quiet, unless more comes; null once that was told"),
    Index("study_watches_due", "quiet_due_at", sqlite_where=text("quiet_due_at IS NOT NULL")),
)

study_events = Table(
    "study_events",
    metadata,
    Column("seq", Integer, ForeignKey("changes.seq"), primary_key=True, comment="of its change"),
    Column("study_key", Integer, ForeignKey("studies.study_key"), nullable=False),
    Column("revision", Integer, nullable=False, comment="of the study, as study_watches counts it"),
    Column(
        "evidence", Text, nullable=False, comment="JSON object: what it is based on, without patient data"
    ),
    Index("study_events_of_study", "study_key", "seq"),
)

# Forwarding: what the rules chose to be sent on.

forwards = Table(
    "forwards",
    metadata,
    Column("forward_key", Integer, primary_key=True, comment="given in the order in which rules chose"),
    Column(
        "version_key", Integer, ForeignKey("versions.version_key"), nullable=False, comment="what is sent"
    ),
    Column(
        "destination",
        Text,
        nullable=False,
        comment="name of a peer or of an origin server, which may not be there any more",
    ),
    Column("rule", Text, nullable=False, comment="name of the rule that chose it"),
    Column("priority", Integer, nullable=False, comment="of the rule, and so of the job"),
    Column(
        "state",
        Text,
        _one_of("state", FORWARD_STATES),
        nullable=False,
        comment="waiting: for a job. queued: a job has it. sent: the destination answered that it took it. failed: its job"
        " ended without, and a person is to look. dropped: it is not to be sent any more",
    ),
    Column(
        "job_key",
        Integer,
        comment="the job that has it, or had it last, which may be gone by age; null before",
    ),
    Column("position", Integer, comment="of its item in that job"),
    Column("words", Text, nullable=False, comment="why, without patient data; of a sent one its warning"),
    Column("created_at", Text, nullable=False, comment="when the rule chose it"),
    Column("changed_at", Text, nullable=False, comment="when the row was last changed"),
    UniqueConstraint("version_key", "destination", name="forwards_version"),
    Index(
        "forwards_open",
        "state",
        "destination",
        "priority",
        "job_key",
        "forward_key",
        sqlite_where=text(OPEN_FORWARDS),
    ),
    Index("forwards_of_job", "job_key", "position", sqlite_where=text(FORWARDS_IN_JOB)),
    sqlite_autoincrement=True,
)

# The ledger: who came, and every request seen. Only rows know it; a kill can lose the last batch.

associations = Table(
    "associations",
    metadata,
    Column("association_key", Integer, primary_key=True),
    Column("association_id", Text, nullable=False),
    Column(
        "receiver", Text, nullable=False, comment="the receiving process, as its depot folder is named; or ''"
    ),
    Column("opened_at", Text, nullable=False),
    Column("closed_at", Text, comment="null while it is open, or when its process died"),
    Column("calling_ae_title", Text, nullable=False),
    Column("called_ae_title", Text, nullable=False),
    Column("peer_address", Text, nullable=False),
    Column("implementation_class_uid", Text, nullable=False, comment="the peer's (PS3.7 §D.3.3.2), or ''"),
    Column("implementation_version_name", Text, nullable=False, comment="the peer's, or ''"),
    Column("rejection_result", Integer, comment="PS3.8 §9.3.4 result; null when it was accepted"),
    Column("rejection_source", Integer, comment="PS3.8 §9.3.4 source"),
    Column("rejection_reason", Integer, comment="PS3.8 §9.3.4 reason"),
    Column("contexts_accepted", Integer, nullable=False, comment="presentation contexts"),
    Column("contexts_refused", Integer, nullable=False, comment="presentation contexts"),
    Column(
        "contexts",
        Text,
        comment="JSON list of [context id, abstract syntax, result, transfer syntax]; null when it was not accepted",
    ),
    Column("messages", Integer, nullable=False, comment="requests of all kinds"),
    Column("bytes_received", Integer, nullable=False, comment="from the peer, in data sets and all else"),
    Column(
        "ended",
        Text,
        nullable=False,
        comment="released, aborted, lost, rejected, refused or shutdown; '' while open",
    ),
    Column("words", Text, nullable=False, comment="why it ended so"),
    Column(
        "user_identity_type",
        Integer,
        comment="on whose behalf the peer calls (PS3.7 §D.3.3.7): 1 user name, 2 user name with passcode, 3 Kerberos,"
        " 4 SAML, 5 JWT; null when it does not say",
    ),
    Column(
        "user_identity_name",
        Text,
        comment="the user name, as claimed and not verified; null for other types, whose field is a secret",
    ),
    UniqueConstraint("association_id", name="associations_id"),
    Index("associations_open", "receiver", sqlite_where=text("closed_at IS NULL")),
)

requests = Table(
    "requests",
    metadata,
    Column("request_key", Integer, primary_key=True),
    Column(
        "association_id",
        Text,
        nullable=False,
        comment="of associations; no foreign key: it may be written later",
    ),
    Column("message_id", Integer, nullable=False, comment="(0000,0110)"),
    Column("sop_class_uid", Text, nullable=False, comment="affected, as the command names it, or ''"),
    Column("sop_instance_uid", Text, nullable=False, comment="affected, as the command names it, or ''"),
    Column("transfer_syntax_uid", Text, nullable=False, comment="of the presentation context"),
    Column("requested_at", Text, nullable=False, comment="when the command was there"),
    Column("status", Integer, comment="the answered status; null when there was no answer"),
    Column("error_comment", Text, nullable=False, comment="(0000,0902) of the answer, or why there was none"),
    Column("data_set_length", Integer, nullable=False, comment="bytes that came"),
    Column(
        "digest",
        Text,
        nullable=False,
        comment="BLAKE3-256 of them when the data set came whole; '' when not, or when the request was refused before it",
    ),
    Column(
        "outcome", Text, nullable=False, comment="kept, refused or lost (the data set did not come whole)"
    ),
    Column("receipt_id", Text, nullable=False, comment="of receipts, or ''"),
    Column("seconds_network", Float, nullable=False, comment="until the last byte was there"),
    Column(
        "seconds_disk", Float, nullable=False, comment="in writing and syncing; 0 when nothing was written"
    ),
    Column(
        "seconds_total",
        Float,
        nullable=False,
        comment="from the command to the answer, or to the end without",
    ),
    Index("requests_of_association", "association_id"),
)

# Jobs: what is to be done after the answer, by whichever process comes to it.

jobs = Table(
    "jobs",
    metadata,
    Column("job_key", Integer, primary_key=True, comment="given in the order of submission"),
    Column("job_id", Text, nullable=False, comment="a UUID, by which everyone else names it"),
    Column("kind", Text, nullable=False, comment="what is to be done; the kinds are code"),
    Column(
        "state",
        Text,
        _one_of("state", JOB_STATES),
        nullable=False,
        comment="its moves stand in jobs/states.py",
    ),
    Column(
        "wish",
        Text,
        _one_of("wish", JOB_WISHES),
        nullable=False,
        comment="what a running job was asked for and has not done yet",
    ),
    Column(
        "priority",
        Integer,
        nullable=False,
        comment="the larger goes first; in order of submission among equals",
    ),
    Column("lane", Text, nullable=False, comment="jobs of one lane wait for each other; '' is no lane"),
    Column(
        "step", Text, nullable=False, comment="where it is, in the words of its kind; '' at its beginning"
    ),
    Column("arguments", Text, nullable=False, comment="JSON object: what to do; never changes"),
    Column("checkpoint", Text, nullable=False, comment="JSON object: what its kind needs in order to go on"),
    Column("items_total", Integer, nullable=False, comment="0 while it is not known"),
    Column("items_done", Integer, nullable=False, comment="of items_total"),
    Column("subject", Text, nullable=False, comment="the UID that it is about, or ''"),
    Column("peer", Text, nullable=False, comment="name of the peer that it is about, or ''"),
    Column("created_at", Text, nullable=False, comment="when it was submitted"),
    Column("created_by", Text, nullable=False, comment="who asked for it: a credential, a command, a peer"),
    Column("due_at", Text, nullable=False, comment="not to be started before"),
    Column("started_at", Text, comment="the first time"),
    Column("finished_at", Text, comment="when it came to success, failure or cancelled; null otherwise"),
    Column("seconds_run", Float, nullable=False, comment="in all of its runs"),
    Column("attempts", Integer, nullable=False, comment="how often it was started"),
    Column(
        "failures", Integer, nullable=False, comment="in a row, without progress: the back-off follows them"
    ),
    Column(
        "faults", Integer, nullable=False, comment="in a row: runs that ended with an exception or a death"
    ),
    Column(
        "error", Text, nullable=False, comment="why the last attempt ended so, in words without patient data"
    ),
    Column("owner", Text, nullable=False, comment="the process that runs it, '' when none does"),
    Column("heartbeat", Integer, nullable=False, comment="counted up by the owner while it lives"),
    UniqueConstraint("job_id", name="jobs_id"),
    # By lane first: however many wait in a blocked lane, looking for what is due passes over them in one step.
    Index("jobs_waiting", "lane", "due_at", "kind", "priority", "state", sqlite_where=text(WAITING)),
    Index("jobs_running", "lane", sqlite_where=text(RUNNING)),
    Index("jobs_wished", "job_key", sqlite_where=text("wish <> ''")),
    Index("jobs_finished", "finished_at", sqlite_where=text("finished_at IS NOT NULL")),
    Index("jobs_of_kind", "kind", "job_key"),
    Index("jobs_of_peer", "peer", "job_key", sqlite_where=text("peer <> ''")),
    Index("jobs_of_subject", "subject", sqlite_where=text("subject <> ''")),
    sqlite_autoincrement=True,
)

job_items = Table(
    "job_items",
    metadata,
    Column("job_key", Integer, ForeignKey("jobs.job_key", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, comment="in the order of submission"),
    Column("name", Text, nullable=False, comment="what the item is: a UID, mostly"),
    Column("outcome", Text, nullable=False, comment="'' while it is to be done, then a word of its kind"),
    Column("code", Integer, comment="a DIMSE status or failure reason, where there is one"),
    Column("words", Text, nullable=False, comment="why, without patient data"),
    Column("done_at", Text, comment="null while it is to be done"),
    sqlite_with_rowid=False,
)

job_lanes = Table(
    "job_lanes",
    metadata,
    Column("lane", Text, primary_key=True, comment="of jobs; it has a row while it is blocked"),
    Column("failures", Integer, nullable=False, comment="in a row; the row goes with the first success"),
    Column("blocked_until", Text, nullable=False, comment="no job of the lane is started before"),
    Column("words", Text, nullable=False, comment="why"),
    sqlite_with_rowid=False,
)

# Storage commitment (PS3.4 Annex J, PS3.18 chapter 13), asked of us and asked by us.

commitments = Table(
    "commitments",
    metadata,
    Column("commitment_key", Integer, primary_key=True),
    Column("role", Text, _one_of("role", COMMITMENT_ROLES), nullable=False, comment="ours"),
    Column("way", Text, nullable=False, comment="DIMSE or web"),
    Column("transaction_uid", Text, nullable=False, comment="(0008,1195)"),
    Column(
        "state", Text, _one_of("state", COMMITMENT_STATES), nullable=False, comment="see COMMITMENT_STATES"
    ),
    Column(
        "peer",
        Text,
        nullable=False,
        comment="name of the configured peer, or ''; of a web client its credential",
    ),
    Column("peer_ae_title", Text, nullable=False, comment="'' of a web client"),
    Column(
        "own_ae_title",
        Text,
        nullable=False,
        comment="what the peer called us, or what we call ourselves to it",
    ),
    Column("peer_address", Text, nullable=False),
    Column("association_id", Text, nullable=False, comment="in which the request came or went, or ''"),
    Column(
        "content",
        Text,
        nullable=False,
        comment="BLAKE3-256 over the sorted references: tells a repeat from another",
    ),
    Column("instances", Integer, nullable=False, comment="how many are asked for"),
    Column("failures", Integer, nullable=False, comment="how many of them failed, once that is certain"),
    Column(
        "duplicate_of",
        Integer,
        ForeignKey("commitments.commitment_key"),
        comment="the transaction that had this UID before: then every instance fails with 0131H",
    ),
    Column(
        "replaces",
        Integer,
        ForeignKey("commitments.commitment_key"),
        comment="of a user: the transaction that this one asks again for",
    ),
    Column("job_id", Text, nullable=False, comment="of jobs, which may be gone by age; or ''"),
    Column("requested_at", Text, nullable=False, comment="when the request came, or was made"),
    Column("checked_at", Text, comment="when the outcomes became certain"),
    Column("reported_at", Text, comment="when the peer had the report, or we had the peer's"),
    Column("expires_at", Text, comment="of a user: until when a report is awaited"),
    Column("report_attempts", Integer, nullable=False, comment="rows of commitment_reports"),
    Column("error", Text, nullable=False, comment="what went wrong last, in words without patient data"),
    Index(
        "commitments_transaction",
        "role",
        "transaction_uid",
        unique=True,
        sqlite_where=text("duplicate_of IS NULL"),
    ),
    Index("commitments_open", "role", "commitment_key", sqlite_where=text("reported_at IS NULL")),
    Index("commitments_of_peer", "peer", "commitment_key"),
    sqlite_autoincrement=True,
)

commitment_instances = Table(
    "commitment_instances",
    metadata,
    Column(
        "commitment_key",
        Integer,
        ForeignKey("commitments.commitment_key", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("position", Integer, primary_key=True, comment="in the order of the request"),
    Column("sop_class_uid", Text, nullable=False, comment="(0008,1150) as asked for"),
    Column("sop_instance_uid", Text, nullable=False, comment="(0008,1155) as asked for"),
    Column("uid_hash", Integer, nullable=False, comment="`uid_hash` of the SOP Instance UID"),
    Column(
        "version_key",
        Integer,
        ForeignKey("versions.version_key"),
        comment="of a provider: what was checked and is held; of a user: what we had when we asked",
    ),
    Column(
        "outcome",
        Text,
        _one_of("outcome", COMMITMENT_OUTCOMES),
        nullable=False,
        comment="'' while it is open. unasked: it came in a report and had not been asked for",
    ),
    Column("reason", Integer, comment="Failure Reason (0008,1197) of a failed one"),
    Column("words", Text, nullable=False, comment="why, without patient data"),
    Column("checked_at", Text, comment="when the outcome became certain"),
    Index("commitment_instances_uid", "uid_hash"),
    sqlite_with_rowid=False,
)

commitment_reports = Table(
    "commitment_reports",
    metadata,
    Column("report_key", Integer, primary_key=True),
    Column(
        "commitment_key",
        Integer,
        ForeignKey("commitments.commitment_key", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("at", Text, nullable=False, comment="when the attempt began, or the report came"),
    Column("way", Text, nullable=False, comment="same or new association, received, or web"),
    Column("status", Integer, comment="of the N-EVENT-REPORT response; null when there was none"),
    Column("words", Text, nullable=False, comment="what happened; '' when all went well"),
    Column("seconds", Float, nullable=False, comment="how long the attempt took"),
    Index("commitment_reports_of", "commitment_key"),
)

# Who else there is, and who may ask for what by HTTP. Peers of the settings are not in here.

peers = Table(
    "peers",
    metadata,
    Column("peer_key", Integer, primary_key=True),
    Column("name", Text, nullable=False, comment="of the peer, unique over settings and this table"),
    Column("definition", Text, nullable=False, comment="JSON object with the keys of a [[peers]] entry"),
    Column("changed_at", Text, nullable=False, comment="when the row was made or last changed"),
    Column("changed_by", Text, nullable=False, comment="a credential, or the user of a command"),
    UniqueConstraint("name", name="peers_name"),
)

peer_echoes = Table(
    "peer_echoes",
    metadata,
    Column("peer", Text, primary_key=True, comment="name of the peer, of the settings or not"),
    Column("answered_at", Text, comment="when it last answered an echo of ours with Success"),
    Column("failed_at", Text, comment="when it last did not"),
    Column("failure", Text, nullable=False, comment="why, in words without patient data"),
    sqlite_with_rowid=False,
)

credentials = Table(
    "credentials",
    metadata,
    Column("credential_key", Integer, primary_key=True),
    Column("name", Text, nullable=False, comment="of the user or of the token"),
    Column(
        "kind",
        Text,
        _one_of("kind", CREDENTIAL_KINDS),
        nullable=False,
        comment="bearer token, or basic authentication",
    ),
    Column(
        "role",
        Text,
        _one_of("role", CREDENTIAL_ROLES),
        nullable=False,
        comment="each may what the one before may",
    ),
    Column(
        "may_store", Integer, nullable=False, comment="1: instances may be stored by HTTP, whatever the role"
    ),
    Column("secret_hash", Text, nullable=False, comment="never the secret"),
    Column("created_at", Text, nullable=False, comment="when it was added"),
    Column("created_by", Text, nullable=False, comment="who added it"),
    UniqueConstraint("name", name="credentials_name"),
)

audit = Table(
    "audit",
    metadata,
    Column("audit_key", Integer, primary_key=True),
    Column("at", Text, nullable=False, comment="when it was done"),
    Column("who", Text, nullable=False, comment="a credential, or the user of a command"),
    Column("action", Text, nullable=False, comment="what was done, such as `job cancelled`"),
    Column("subject", Text, nullable=False, comment="a UID, a job id, the name of a peer or of a credential"),
    Column("detail", Text, nullable=False, comment="without patient data and without secrets"),
)


def instance_among(uids: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that an instance is one of those with these UIDs."""
    return instances.c.uid_hash.in_(list(map(uid_hash, uids))) & instances.c.sop_instance_uid.in_(uids)
