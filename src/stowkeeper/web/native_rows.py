"""The shapes of the archive's rows, made from the schema: the names of its columns, and what their comments say.

So what a list gives, what the OpenAPI document says of it, and what stands in the database are one thing. The keys are those
of `ls --json`.
"""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, create_model
from sqlalchemy import Column, Float, Integer, Table

from stowkeeper.archive.catalog import VERSION_ATTRIBUTES
from stowkeeper.archive.changes import ChangeKind
from stowkeeper.archive.patient_tree import PATIENTS, SERIES, STUDIES
from stowkeeper.database.schema import (
    associations,
    audit,
    patients,
    receipts,
    requests,
    series,
    studies,
    versions,
)
from stowkeeper.web.native_models import FineSeconds, Shape

Fields = dict[str, Any]

_STATE = Literal["kept", "superseded", "removing", "removed", "damaged"]


def _columns(table: Table, names: Iterable[str]) -> Fields:
    return {name: _field(table.c[name]) for name in names}


def _field(column: Column[Any]) -> tuple[Any, Any]:
    kind: Any = str
    if isinstance(column.type, Integer):
        kind = int
    elif isinstance(column.type, Float):
        kind = FineSeconds  # every number of that type is one
    return (kind | None if column.nullable else kind), Field(description=column.comment)


def _said(kind: Any, description: str) -> tuple[Any, Any]:  # noqa: ANN401 - a type, as pydantic takes them
    return kind, Field(description=description)


def _shape(name: str, description: str, fields: Fields) -> type[Shape]:
    made: type[Shape] = create_model(name, __base__=Shape, __doc__=description, **fields)
    return made


_COUNTED: Fields = {
    "size": _said(int, "bytes of the files, their heads included"),
    "damaged": _said(int, "instances of which no whole version is kept"),
    "first_received_at": _said(str, "of the versions that are current, the first time received"),
    "last_received_at": _said(str, "of the versions that are current, the last time received"),
}

Study = _shape(
    "Study",
    "A study that holds an instance, with its patient and its counts.",
    {
        "study_instance_uid": _field(studies.c.study_instance_uid),
        "patient_id": _said(str | None, "(0010,0020); '' where the instances have none"),
        "issuer_of_patient_id": _said(str | None, "(0010,0021) or ''; part of the identity"),
        **_columns(patients, PATIENTS.attributes),
        **_columns(studies, STUDIES.attributes),
        "modalities_in_study": _said(list[str], "(0008,0061)"),
        "number_of_study_related_series": _said(int, "(0020,1206)"),
        "number_of_study_related_instances": _said(int, "(0020,1208)"),
        **_COUNTED,
    },
)

Series = _shape(
    "Series",
    "A series that holds an instance, with its counts.",
    {
        "series_instance_uid": _said(str | None, "(0020,000E); null where instances of a study have none"),
        "study_instance_uid": _field(studies.c.study_instance_uid),
        **_columns(series, SERIES.attributes),
        "number_of_series_related_instances": _said(int, "(0020,1209)"),
        **_COUNTED,
    },
)

Instance = _shape(
    "Instance",
    "A version of an instance.",
    {
        "sop_instance_uid": _said(str, "(0008,0018)"),
        "sop_class_uid": _field(versions.c.sop_class_uid),
        "study_instance_uid": _said(str | None, "(0020,000D); null for instances outside of studies"),
        "series_instance_uid": _said(str | None, "(0020,000E); null where it has none"),
        "transfer_syntax_uid": _field(versions.c.transfer_syntax_uid),
        "path": _field(versions.c.path),
        "size": _field(versions.c.file_size),
        **_columns(receipts, ("digest", "data_set_length", "receipt_id", "received_at", "received_by")),
        "calling_ae_title": _said(str, "of the association that it came by, '' where it came without one"),
        "state": _said(_STATE, versions.c.state.comment or ""),
        "conflict": _said(bool, "whether another version of the instance, not removed, differs"),
        "current": _said(bool, "whether it is the version that counts"),
        "held": _said(bool, "whether somebody was promised that it stays"),
        **_columns(versions, VERSION_ATTRIBUTES),
    },
)

Receipt = _shape(
    "Receipt",
    "What was received and kept, with the version that it proves.",
    {
        "receipt_id": _field(receipts.c.receipt_id),
        "outcome": _said(Literal["stored", "identical", "conflict"], receipts.c.outcome.comment or ""),
        "sop_instance_uid": _said(str, "(0008,0018)"),
        **_columns(versions, ("sop_class_uid", "transfer_syntax_uid")),
        **_columns(receipts, ("digest", "data_set_length", "received_at", "received_by")),
        "calling_ae_title": _said(str, "of the association that it came by, '' where it came without one"),
        "called_ae_title": _said(str, "of that association"),
        "peer_address": _said(str, "where that association came from"),
        "association_id": _field(receipts.c.association_id),
        "answer": _said(Literal["known", "unknown"], receipts.c.answer.comment or ""),
        "verdicts": _said(list[Any], "what could not be read or is against the standard"),
        "path": _field(versions.c.path),
        "state": _said(_STATE, versions.c.state.comment or ""),
    },
)

_DECODED = ("association_key", "contexts", "rejection_result", "rejection_source", "rejection_reason")

Association = _shape(
    "Association",
    "A line of the ledger: an association that was asked for, or a store request by HTTP, which has no AE titles; with the requests in"
    " it counted.",
    {
        **_columns(associations, (column.name for column in associations.c if column.name not in _DECODED)),
        "rejection": _said(
            list[int | None] | None, "result, source and reason (PS3.8 §9.3.4); null when accepted"
        ),
        "contexts": _said(list[Any], "presentation contexts: [id, abstract syntax, result, transfer syntax]"),
        "requests_kept": _said(int, "requests to store that were kept"),
        "requests_refused": _said(int, "requests to store that were refused"),
        "requests_lost": _said(int, "requests to store whose data set did not come whole"),
    },
)

StoreRequest = _shape(
    "StoreRequest",
    "A request to store, by C-STORE or as a part of one by HTTP, refused and lost ones too.",
    {
        **_columns(
            requests, (column.name for column in requests.c if column.name not in {"request_key", "status"})
        ),
        "status": _said(str | None, "the answered status, such as 0000H; null when there was no answer"),
        "calling_ae_title": _said(str | None, "null while the line of its association is not written"),
    },
)

Change = _shape(
    "Change",
    "Something that happened in the archive.",
    {
        "seq": _said(int, "grows with each change, and is never given twice"),
        "at": _said(str, "when it happened"),
        "kind": _said(ChangeKind, "what happened"),
        "receipt_id": _said(str, "of the receipt that it came by"),
        "sop_instance_uid": _said(str, "(0008,0018)"),
        "study_instance_uid": _said(str | None, "(0020,000D); null for instances outside of studies"),
        "series_instance_uid": _said(str | None, "(0020,000E); null where it has none"),
        "detail": _said(str, "why, in words"),
    },
)

AuditEntry = _shape(
    "AuditEntry",
    "Who did by hand what no policy does.",
    {**_columns(audit, ("at", "who", "action", "subject", "detail"))},
)
