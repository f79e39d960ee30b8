"""Check policies: what has to hold of an instance before a peer is told that it is committed.

Built in are `index` (the row says kept), `exists` (the file is there with its length) and `digest` (every byte fits
receipt and row, read from the medium), as shipped the last one. Policies from outside stand in `external_policies.py`.

A policy answers; it changes no row of a commitment and reports nothing. What it need not answer is settled before it is
asked: an instance in an unsettled conflict, one whose file was found damaged, one of another SOP class.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from stowkeeper.archive.catalog_values import Version
from stowkeeper.archive.checking import CheckLevel, CheckResult, check_versions
from stowkeeper.database.engine import Database
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.dicom.status import Status
from stowkeeper.durable.filesystem import FileSystem


class PolicyOutcome(StrEnum):
    """What a policy says of one instance. The words are those of policies from outside, too."""

    SUCCESS = "success"
    PROCESSING_FAILURE = "processing-failure"
    NO_SUCH_INSTANCE = "no-such-instance"
    CLASS_INSTANCE_CONFLICT = "class-instance-conflict"
    CLASS_NOT_SUPPORTED = "class-not-supported"
    DUPLICATE_TRANSACTION = "duplicate-transaction"
    RESOURCE_LIMITATION = "resource-limitation"
    NOT_YET = "not-yet"  # nothing is certain: ask again later


FAILURE_REASONS: Final[Mapping[PolicyOutcome, int]] = MappingProxyType(
    {
        PolicyOutcome.PROCESSING_FAILURE: Status.PROCESSING_FAILURE,
        PolicyOutcome.NO_SUCH_INSTANCE: Status.NO_SUCH_SOP_INSTANCE,
        PolicyOutcome.CLASS_INSTANCE_CONFLICT: Status.CLASS_INSTANCE_CONFLICT,
        PolicyOutcome.CLASS_NOT_SUPPORTED: Status.SOP_CLASS_NOT_SUPPORTED,
        PolicyOutcome.DUPLICATE_TRANSACTION: Status.DUPLICATE_TRANSACTION_UID,
        PolicyOutcome.RESOURCE_LIMITATION: Status.RESOURCE_LIMITATION,
    }
)
"""The Failure Reason (0008,1197) of each outcome that is a failure (PS3.3 §C.14.1.1)."""


class PolicyError(Exception):
    """The policy itself failed, and nothing is known of what it was asked; the text says why, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckQuestion:
    """One instance that a policy is asked about.

    `version` is what the commitment would be of, with its file at `path` (absolute); None and "" where the archive has
    none, which only a policy that `decides_on_unknown` is asked.
    """

    reference: Reference
    version: Version | None
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckContext:
    """Which transaction the questions belong to, and who asked in it."""

    transaction_uid: str
    peer: str
    peer_ae_title: str
    own_ae_title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckAnswer:
    """What a policy says of one instance; `words` say why, without patient data, and are empty for a success.

    `is_unreadable` tells that nothing could be learnt of the file for now.
    """

    outcome: PolicyOutcome
    words: str = ""
    is_unreadable: bool = False


SUCCESS: Final = CheckAnswer(outcome=PolicyOutcome.SUCCESS)


class CheckPolicy(Protocol):
    """Answers for instances whether they can be committed."""

    @property
    def name(self) -> str:
        """Return the name by which the settings choose it."""
        ...

    @property
    def decides_on_unknown(self) -> bool:
        """Tell whether it is asked of instances that the archive does not have as well."""
        ...

    def check(
        self, questions: Sequence[CheckQuestion], context: CheckContext, stopping: threading.Event
    ) -> list[CheckAnswer]:
        """Return an answer for each question, in their order. Blocks.

        Raises PolicyError; CheckStoppedError soon after `stopping` is set; DatabaseUnavailable.
        """
        ...


class BuiltInPolicy:
    """Checks the archive's own files at one of the levels of `archive/checking.py`."""

    decides_on_unknown = False

    def __init__(self, level: CheckLevel, files: FileSystem, root: str, database: Database) -> None:
        self.name = str(level)
        self._level = level
        self._files = files
        self._root = root
        self._database = database

    def check(
        self, questions: Sequence[CheckQuestion], context: CheckContext, stopping: threading.Event
    ) -> list[CheckAnswer]:
        """Check each version once, however often it is asked for; see `CheckPolicy.check`."""
        del context  # who asks changes nothing of what is on the disk
        asked = {
            question.version.version_key: question.version
            for question in questions
            if question.version is not None
        }
        found = {
            version.version_key: _answer(result)
            for version, result in check_versions(
                self._files, self._root, self._database, asked.values(), self._level, stopping
            )
        }
        return [
            NOT_THERE if question.version is None else found[question.version.version_key]
            for question in questions
        ]


NOT_THERE: Final = CheckAnswer(
    outcome=PolicyOutcome.NO_SUCH_INSTANCE, words="the archive has no such instance"
)


def _answer(result: CheckResult | OSError) -> CheckAnswer:
    if isinstance(result, OSError):
        return CheckAnswer(
            outcome=PolicyOutcome.PROCESSING_FAILURE,
            words=result.strerror or str(result),
            is_unreadable=True,
        )
    if result.is_whole:
        return SUCCESS
    if result.is_missing:
        return CheckAnswer(outcome=PolicyOutcome.NO_SUCH_INSTANCE, words=result.words)
    return CheckAnswer(outcome=PolicyOutcome.PROCESSING_FAILURE, words=result.words)
