"""The first schema: archive, patient tree, instances, receipts, changes, and the ledger.

Revision: 0001. What the columns mean stands in `stowkeeper/database/schema.py`.
"""

from alembic import op
from sqlalchemy import CheckConstraint, Column, Float, ForeignKey, Integer, Text, UniqueConstraint, text

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    _make_archive_and_patients()
    _make_studies_and_series()
    _make_instances()
    _make_versions()
    _make_receipts()
    _make_ledger()


def _texts(*names: str) -> list[Column[str]]:
    return [Column(name, Text, nullable=False) for name in names]


def _optional_texts(*names: str) -> list[Column[str]]:
    return [Column(name, Text) for name in names]


def _integers(*names: str) -> list[Column[int]]:
    return [Column(name, Integer, nullable=False) for name in names]


def _optional_integers(*names: str) -> list[Column[int]]:
    return [Column(name, Integer) for name in names]


def _floats(*names: str) -> list[Column[float]]:
    return [Column(name, Float, nullable=False) for name in names]


def _make_archive_and_patients() -> None:
    op.create_table(
        "archive",
        Column(
            "archive_key", Integer, CheckConstraint("archive_key = 1", name="there_is_one"), primary_key=True
        ),
        *_optional_texts("archive_id"),
        *_texts("created_at", "created_by", "migrated_at", "migrated_by"),
    )
    op.create_table(
        "patients",
        Column("patient_key", Integer, primary_key=True),
        *_texts("patient_id", "issuer_of_patient_id", "study_instance_uid"),
        *_optional_texts(
            "patient_name",
            "patient_birth_date",
            "patient_birth_time",
            "patient_sex",
            "other_patient_ids",
            "other_patient_names",
            "ethnic_group",
            "patient_comments",
        ),
        *_texts("described_at", "described_by"),
        UniqueConstraint(
            "patient_id", "issuer_of_patient_id", "study_instance_uid", name="patients_identity"
        ),
    )


def _make_studies_and_series() -> None:
    op.create_table(
        "studies",
        Column("study_key", Integer, primary_key=True),
        *_texts("study_instance_uid"),
        Column("patient_key", Integer, ForeignKey("patients.patient_key")),
        *_optional_texts(
            "study_date",
            "study_time",
            "accession_number",
            "study_id",
            "study_description",
            "referring_physician_name",
            "name_of_physicians_reading_study",
            "admitting_diagnoses_description",
            "patient_age",
            "patient_size",
            "patient_weight",
            "occupation",
            "additional_patient_history",
        ),
        *_texts("described_at", "described_by"),
        UniqueConstraint("study_instance_uid", name="studies_uid"),
    )
    op.create_index("studies_of_patient", "studies", ["patient_key"])
    op.create_table(
        "series",
        Column("series_key", Integer, primary_key=True),
        Column("study_key", Integer, ForeignKey("studies.study_key"), nullable=False),
        *_texts("series_instance_uid"),
        *_optional_texts("modality"),
        *_optional_integers("series_number"),
        *_optional_texts(
            "series_description",
            "series_date",
            "series_time",
            "manufacturer",
            "institution_name",
            "station_name",
            "institutional_department_name",
            "performing_physician_name",
            "operators_name",
            "manufacturer_model_name",
            "body_part_examined",
            "protocol_name",
            "frame_of_reference_uid",
            "laterality",
            "performed_procedure_step_start_date",
            "performed_procedure_step_start_time",
            "performed_procedure_step_id",
            "performed_procedure_step_description",
        ),
        *_texts("described_at", "described_by"),
        UniqueConstraint("series_instance_uid", "study_key", name="series_uid"),
    )
    op.create_index("series_of_study", "series", ["study_key"])


def _make_instances() -> None:
    op.create_table(
        "instances",
        Column("instance_key", Integer, primary_key=True),
        *_texts("sop_instance_uid"),
        *_optional_integers("current_version_key"),
        *_integers("uid_hash"),
    )
    op.create_index("instances_uid_hash", "instances", ["uid_hash"])


def _make_versions() -> None:
    op.create_table(
        "versions",
        Column("version_key", Integer, primary_key=True),
        Column("instance_key", Integer, ForeignKey("instances.instance_key"), nullable=False),
        Column("series_key", Integer, ForeignKey("series.series_key")),
        *_texts("sop_class_uid", "transfer_syntax_uid", "path"),
        *_integers("file_size"),
        Column(
            "state",
            Text,
            CheckConstraint(
                "state IN ('kept', 'superseded', 'removing', 'removed', 'damaged')", name="state_is_known"
            ),
            nullable=False,
        ),
        *_integers("conflict"),
        *_optional_texts("state_since", "removal_due_at"),
        *_optional_integers("instance_number", "number_of_frames", "rows", "columns", "bits_allocated"),
        *_optional_texts(
            "specific_character_set",
            "image_type",
            "instance_creation_date",
            "instance_creation_time",
            "acquisition_date",
            "content_date",
            "acquisition_date_time",
            "acquisition_time",
            "content_time",
            "timezone_offset_from_utc",
        ),
        *_optional_integers("acquisition_number"),
        *_optional_texts(
            "observation_date_time",
            "completion_flag",
            "verification_flag",
            "document_title",
            "mime_type_of_encapsulated_document",
            "content_label",
            "content_description",
            "presentation_creation_date",
            "presentation_creation_time",
            "content_creator_name",
            "structure_set_label",
            "structure_set_date",
            "structure_set_time",
            "rt_plan_label",
            "rt_plan_date",
            "rt_plan_time",
        ),
    )
    op.create_index("versions_in_conflict", "versions", ["instance_key"], sqlite_where=text("conflict = 1"))
    op.create_index(
        "versions_leaving",
        "versions",
        ["removal_due_at"],
        sqlite_where=text("state IN ('superseded', 'removing')"),
    )
    op.create_index("versions_damaged", "versions", ["version_key"], sqlite_where=text("state = 'damaged'"))
    op.create_index("versions_of_instance", "versions", ["instance_key"])
    op.create_index("versions_of_series", "versions", ["series_key", "instance_key"])
    op.create_index(
        "versions_path",
        "versions",
        ["path"],
        unique=True,
        sqlite_where=text("state IN ('kept', 'superseded', 'removing')"),
    )


def _make_receipts() -> None:
    op.create_table(
        "receipts",
        Column("receipt_key", Integer, primary_key=True),
        *_texts("receipt_id"),
        Column("version_key", Integer, ForeignKey("versions.version_key"), nullable=False),
        Column(
            "outcome",
            Text,
            CheckConstraint("outcome IN ('stored', 'identical', 'conflict')", name="outcome_is_known"),
            nullable=False,
        ),
        *_texts(
            "received_at",
            "received_by",
            "calling_ae_title",
            "called_ae_title",
            "peer_address",
            "association_id",
            "digest",
        ),
        *_integers("data_set_length"),
        Column(
            "answer",
            Text,
            CheckConstraint("answer IN ('known', 'unknown')", name="answer_is_known"),
            nullable=False,
        ),
        *_optional_texts("verdicts"),
        UniqueConstraint("receipt_id", name="receipts_id"),
    )
    op.create_index("receipts_of_version", "receipts", ["version_key"])
    op.create_index("receipts_received", "receipts", ["received_at"])
    op.create_table(
        "holds",
        Column("version_key", Integer, ForeignKey("versions.version_key"), primary_key=True),
        Column("reason", Text, primary_key=True),
        *_texts("held_since"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "changes",
        Column("seq", Integer, primary_key=True),
        *_texts("at", "kind"),
        Column("receipt_key", Integer, ForeignKey("receipts.receipt_key"), nullable=False),
        Column("version_key", Integer, ForeignKey("versions.version_key")),
        *_optional_integers("previous_version_key"),
        *_optional_texts("detail"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "changes_received", "changes", ["receipt_key"], unique=True, sqlite_where=text("kind = 'received'")
    )


def _make_ledger() -> None:
    op.create_table(
        "associations",
        Column("association_key", Integer, primary_key=True),
        *_texts("association_id", "receiver", "opened_at"),
        *_optional_texts("closed_at"),
        *_texts(
            "calling_ae_title",
            "called_ae_title",
            "peer_address",
            "implementation_class_uid",
            "implementation_version_name",
        ),
        *_optional_integers("rejection_result", "rejection_source", "rejection_reason"),
        *_integers("contexts_accepted", "contexts_refused"),
        *_optional_texts("contexts"),
        *_integers("messages", "bytes_received"),
        *_texts("ended", "words"),
        UniqueConstraint("association_id", name="associations_id"),
    )
    op.create_index("associations_open", "associations", ["receiver"], sqlite_where=text("closed_at IS NULL"))
    op.create_table(
        "requests",
        Column("request_key", Integer, primary_key=True),
        *_texts("association_id"),
        *_integers("message_id"),
        *_texts("sop_class_uid", "sop_instance_uid", "transfer_syntax_uid", "requested_at"),
        *_optional_integers("status"),
        *_texts("error_comment"),
        *_integers("data_set_length"),
        *_texts("digest", "outcome", "receipt_id"),
        *_floats("seconds_network", "seconds_disk", "seconds_total"),
    )
    op.create_index("requests_of_association", "requests", ["association_id"])
