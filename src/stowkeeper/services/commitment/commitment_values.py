"""The values that commitment rows are made of, and what comes out of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict

from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.services.commitment.limits import COMMITMENTS_PER_PAGE

WAY_DIMSE = "DIMSE"
"""The way of a request that came, or went, as an N-ACTION."""

WAY_WEB = "web"
"""The way of a request by HTTP (PS3.18 chapter 13), and of a result that was fetched so."""

WAY_SAME_ASSOCIATION = "same association"
WAY_NEW_ASSOCIATION = "new association"
WAY_RECEIVED = "received"


class CommitmentRole(StrEnum):
    """What we are in a transaction (PS3.4 §J.2)."""

    PROVIDER = "provider"
    USER = "user"


class CommitmentState(StrEnum):
    """The states of a transaction; what each means stands in `database/schema.py`."""

    RECEIVED = "received"
    CHECKED = "checked"
    REPORTED = "reported"
    UNDELIVERED = "undelivered"

    REQUESTED = "requested"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    COMMITTED = "committed"
    PARTIAL = "partial"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class InstanceOutcome(StrEnum):
    """What became of one instance; UNASKED came in a report and had not been asked for."""

    OPEN = ""
    COMMITTED = "committed"
    FAILED = "failed"
    UNASKED = "unasked"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """A transaction that is to be written: what its row holds from the beginning.

    `state` is that of the role's beginning. Times are UTC in ISO 8601 with microseconds.
    """

    role: CommitmentRole
    way: str
    transaction_uid: str
    state: CommitmentState
    peer: str = ""
    peer_ae_title: str = ""
    own_ae_title: str = ""
    peer_address: str = ""
    association_id: str = ""
    duplicate_of: int | None = None
    replaces: int | None = None
    job_id: str = ""
    requested_at: str
    expires_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """One transaction as its row has it; the columns are explained in `database/schema.py`."""

    commitment_key: int
    role: CommitmentRole
    way: str
    transaction_uid: str
    state: CommitmentState
    peer: str
    peer_ae_title: str
    own_ae_title: str
    peer_address: str
    association_id: str
    content: str
    instances: int
    failures: int
    duplicate_of: int | None
    replaces: int | None
    job_id: str
    requested_at: str
    checked_at: str | None
    reported_at: str | None
    expires_at: str | None
    report_attempts: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentInstance:
    """One reference of a transaction, and what became of it. `reason` is a Failure Reason (0008,1197)."""

    position: int
    sop_class_uid: str
    sop_instance_uid: str
    version_key: int | None
    outcome: InstanceOutcome
    reason: int | None
    words: str
    checked_at: str | None

    @property
    def reference(self) -> Reference:
        """The instance as it was asked for."""
        return Reference(sop_class_uid=self.sop_class_uid, sop_instance_uid=self.sop_instance_uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is to be written of one instance. `version_key` is the version that was checked, if any.

    `words` say why, without patient data; those of a committed instance are empty.
    """

    position: int
    outcome: InstanceOutcome
    reason: int | None = None
    words: str = ""
    version_key: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """One attempt to tell the peer, or one report of the peer. `status` is None where there was no answer."""

    at: str
    way: str
    status: int | None
    words: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentFilter:
    """Which transactions are listed, newest first; what is empty or None asks for nothing.

    The page after one begins with `before_key`, the `commitment_key` of its last entry. Times are UTC in ISO 8601.
    """

    role: CommitmentRole | None = None
    states: Sequence[CommitmentState] = ()
    peer: str = ""
    transaction_uid: str = ""
    requested_from: str = ""
    requested_to: str = ""
    before_key: int | None = None
    limit: int = COMMITMENTS_PER_PAGE


class CommitmentChanges(TypedDict, total=False):
    """The columns of a transaction that change in its life."""

    state: CommitmentState
    failures: int
    job_id: str
    own_ae_title: str
    association_id: str
    checked_at: str | None
    reported_at: str | None
    expires_at: str | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentCount:
    """How many transactions are in a state, with the sums of their instances and of those that failed."""

    role: CommitmentRole
    state: CommitmentState
    commitments: int
    instances: int
    failures: int
