"""Safe to delete: yes only for what a peer committed, and that is what we still have."""

from pathlib import Path
from unittest.mock import patch

import pytest

from stowkeeper.archive import versions
from stowkeeper.archive.removal import Removal
from stowkeeper.database.engine import Database
from stowkeeper.dicom.commitment_information import EventInformation
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import CommitmentState
from stowkeeper.services.commitment.reports_received import take_report_on_request
from stowkeeper.services.commitment.safe_to_delete import (
    Deletability,
    instances_of_study,
    safe_to_delete,
)
from stowkeeper.services.peers import Peer
from support.archive_rig import ArchiveRig
from support.commitment_asking import (
    MR_IMAGE_STORAGE,
    PEER,
    ask_for,
    event,
    keep_instances,
    references_to,
)
from support.instances import make_instance

OTHER = Peer(name="other", ae_title="OTHER", host="192.0.2.4", port=104)


def report(database: Database, information: EventInformation, peer: Peer = PEER) -> None:
    kind = 2 if information.failed else 1
    assert take_report_on_request(database, peer, kind, information) == (0, "")


def commit(database: Database, *numbers: int, peer: Peer = PEER) -> str:
    """Ask a peer for instances and have it commit them; return the transaction."""
    asked = references_to(*numbers)
    uid = ask_for(database, asked, peer=peer).transaction_uid
    report(database, event(uid, asked), peer)
    return uid


def refuse(database: Database, *numbers: int, peer: Peer = PEER) -> str:
    asked = references_to(*numbers)
    uid = ask_for(database, asked, peer=peer).transaction_uid
    report(database, event(uid, [], asked), peer)
    return uid


def of(database: Database, number: int, peer: str = "") -> Deletability:
    (answer,) = safe_to_delete(database, [f"1.2.3.{number}"], peer)
    return answer


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Database, ArchiveRig]:
    return keep_instances(tmp_path, 1, 2, 3)


def test_what_was_committed_and_is_unchanged_is_safe(kept: tuple[Database, ArchiveRig]) -> None:
    database, _ = kept
    uid = commit(database, 1)
    answer = of(database, 1)
    assert (answer.is_safe, answer.words, answer.peer, answer.transaction_uid) == (True, "", "pacs", uid)
    assert answer.committed_at


def test_what_nobody_was_asked_for_is_not_safe(kept: tuple[Database, ArchiveRig]) -> None:
    database, _ = kept
    commit(database, 1)
    assert (of(database, 2).is_safe, of(database, 2).words) == (False, "no peer was asked to commit it")


def test_what_is_not_here_is_not_safe(kept: tuple[Database, ArchiveRig]) -> None:
    database, _ = kept
    commit(database, 9)
    assert (of(database, 9).is_safe, of(database, 9).words) == (False, "no whole version of it is kept here")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("requested", "no report on it has come yet"),
        ("accepted", "no report on it has come yet"),
        ("refused", "the peer refused the request"),
        ("expired", "no report on it came in time"),
        ("cancelled", "the request was cancelled"),
    ],
)
def test_silence_is_no_consent(kept: tuple[Database, ArchiveRig], state: str, words: str) -> None:
    database, _ = kept
    key = ask_for(database, references_to(1)).commitment_key
    with database.write() as transaction:
        rows.change(transaction, key, state=CommitmentState(state))
    assert (of(database, 1).is_safe, of(database, 1).words) == (False, words)


def test_of_a_partial_transaction_the_committed_ones_are_safe(kept: tuple[Database, ArchiveRig]) -> None:
    database, _ = kept
    one, two, three = references_to(1, 2, 3)
    uid = ask_for(database, [one, two, three]).transaction_uid
    report(database, event(uid, [one], [two]))
    answers = safe_to_delete(database, ["1.2.3.3", "1.2.3.1", "1.2.3.2", "1.2.3.1"])
    assert [(answer.sop_instance_uid[-1], answer.is_safe) for answer in answers] == [
        ("3", False),
        ("1", True),
        ("2", False),
    ]
    assert "the report does not name it" in answers[0].words
    assert "no such SOP instance" in answers[2].words


def test_an_unasked_instance_is_not_safe(kept: tuple[Database, ArchiveRig]) -> None:
    database, _ = kept
    asked = references_to(1)
    uid = ask_for(database, asked).transaction_uid
    report(database, event(uid, [*asked, *references_to(2)]))
    assert not of(database, 2).is_safe


def test_a_newer_version_makes_it_unsafe(kept: tuple[Database, ArchiveRig]) -> None:
    database, rig = kept
    commit(database, 1)
    rig.keep(make_instance(1, content=1))
    rig.finish()
    answer = of(database, 1)
    assert (answer.is_safe, answer.words) == (False, "another version of it differs")


def test_a_version_that_took_its_place_is_unsafe_until_it_is_committed(
    kept: tuple[Database, ArchiveRig],
) -> None:
    database, rig = kept
    commit(database, 1)
    removal = Removal(rig.files, rig.root, database)
    removal.carry_out(removal.plan("1.2.3.1"), "a test")
    rig.keep(make_instance(1, content=1))
    rig.finish()
    answer = of(database, 1)
    assert not answer.is_safe
    assert "another version than the one that was committed" in answer.words
    commit(database, 1)
    assert of(database, 1).is_safe


def test_the_same_bytes_again_change_nothing(kept: tuple[Database, ArchiveRig]) -> None:
    database, rig = kept
    commit(database, 1)
    rig.keep(make_instance(1))
    rig.finish()
    assert of(database, 1).is_safe


def test_a_damaged_file_is_not_safe(kept: tuple[Database, ArchiveRig]) -> None:
    database, rig = kept
    commit(database, 1)
    (row,) = [row for row in rig.versions() if row["sop_instance_uid"] == "1.2.3.1"]
    with database.write() as transaction:
        versions.mark_damaged(transaction, row["path"], "a test")
    assert of(database, 1).words == "no whole version of it is kept here"


def test_what_we_promised_to_others_is_not_safe(kept: tuple[Database, ArchiveRig]) -> None:
    database, _ = kept
    commit(database, 1)
    with database.read() as connection:
        (version,) = versions.find_versions(connection, ["1.2.3.1"])["1.2.3.1"]
    with database.write() as transaction:
        versions.hold(transaction, [version.version_key], "storage commitment")
    assert of(database, 1).words == "it is held here: it was promised to others"
    with database.write() as transaction:
        versions.release_hold(transaction, [version.version_key], "storage commitment")
    assert of(database, 1).is_safe


def test_the_last_word_of_a_peer_counts(kept: tuple[Database, ArchiveRig]) -> None:
    database, _ = kept
    commit(database, 1)
    ask_for(database, references_to(1))
    assert of(database, 1).is_safe, "a question takes no answer back"
    refuse(database, 1)
    assert not of(database, 1).is_safe
    commit(database, 1)
    assert of(database, 1).is_safe


def test_the_last_word_of_a_peer_counts_though_the_clock_was_set_back(
    kept: tuple[Database, ArchiveRig],
) -> None:
    database, _ = kept
    times = iter(f"2026-01-{day:02d}T00:00:00.000000Z" for day in range(31, 0, -1))
    with patch.object(database, "_clock", lambda: next(times)):
        commit(database, 1)
        refuse(database, 1)
        assert not of(database, 1).is_safe
        commit(database, 1)
        assert of(database, 1).is_safe


def test_of_two_questions_the_one_that_was_answered_last_counts(kept: tuple[Database, ArchiveRig]) -> None:
    database, _ = kept
    asked = references_to(1)
    first, second = (ask_for(database, asked).transaction_uid for _ in range(2))
    report(database, event(second, asked))
    report(database, event(first, [], asked))
    assert not of(database, 1).is_safe


def test_another_peers_no_does_not_take_a_yes_back(kept: tuple[Database, ArchiveRig]) -> None:
    database, _ = kept
    uid = commit(database, 1)
    refuse(database, 1, peer=OTHER)
    assert (of(database, 1).is_safe, of(database, 1).transaction_uid) == (True, uid)
    assert of(database, 1, "pacs").is_safe
    assert not of(database, 1, "other").is_safe
    assert of(database, 1, "nobody").words == "no peer was asked to commit it"


def test_a_report_that_was_taken_back_proves_nothing(kept: tuple[Database, ArchiveRig]) -> None:
    database, _ = kept
    uid = commit(database, 1)
    report(database, event(uid, [], references_to(1)))
    assert of(database, 1).words == "the peer committed it, and said otherwise in a later report"


def test_committed_under_another_sop_class_is_not_safe(kept: tuple[Database, ArchiveRig]) -> None:
    database, _ = kept
    wrong = references_to(1, sop_class_uid=MR_IMAGE_STORAGE)
    uid = ask_for(database, wrong).transaction_uid
    report(database, event(uid, wrong))
    assert not of(database, 1).is_safe


def test_the_instances_of_a_study_are_listed_once(tmp_path: Path) -> None:
    database, _ = keep_instances(tmp_path, 1, make_instance(2, study="1.9"), make_instance(1, content=1))
    assert instances_of_study(database, "1.2.10") == ["1.2.3.1"]
    assert instances_of_study(database, "1.9") == ["1.2.3.2"]
    assert instances_of_study(database, "1.8") == []
