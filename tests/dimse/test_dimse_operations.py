"""Message ids and windows, as user and as provider."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.dimse.errors import LocalError, PeerError
from stowkeeper.dimse.limits import (
    MESSAGE_ID_MAX,
    OPERATIONS_EXCESS_MAX,
    OPERATIONS_INVOKED_MAX,
    OPERATIONS_PERFORMED_MAX,
)
from stowkeeper.dimse.messages import (
    CEchoRequest,
    CEchoResponse,
    CStoreRequest,
    CStoreResponse,
    UnknownResponse,
)
from stowkeeper.dimse.operations import Admission, InvokedOperations, PerformedOperations
from support.examples import examples

STORE = CStoreRequest.command_field


def stored(message_id):
    return CStoreResponse(responds_to=message_id, status=0)


def echo(message_id):
    return CEchoRequest(message_id=message_id, affected_sop_class_uid="1.2.840.10008.1.1")


# As user


def test_responses_find_their_operations_in_any_order():
    invoked = InvokedOperations[str](3)
    ids = {subject: invoked.begin(STORE, subject) for subject in ("a", "b", "c")}

    assert list(ids.values()) == [1, 2, 3]
    assert [operation.subject for operation in invoked] == ["a", "b", "c"]
    assert invoked.finish(stored(2)).subject == "b"
    assert invoked.finish(stored(3)).message_id == 3
    assert len(invoked) == 1
    assert invoked.finish(stored(1)).command_field == STORE
    assert len(invoked) == 0


def test_the_window_is_kept():
    invoked = InvokedOperations[None](2)
    first = invoked.begin(STORE, None)
    invoked.begin(STORE, None)

    assert not invoked.has_room
    with pytest.raises(LocalError, match="All 2 operations"):
        invoked.begin(STORE, None)
    invoked.finish(stored(first))
    assert invoked.has_room
    invoked.begin(STORE, None)


@pytest.mark.parametrize(
    ("negotiated", "kept"),
    [
        (1, 1),
        (OPERATIONS_INVOKED_MAX, OPERATIONS_INVOKED_MAX),
        (OPERATIONS_INVOKED_MAX + 1, OPERATIONS_INVOKED_MAX),
        (65535, OPERATIONS_INVOKED_MAX),
        (0, OPERATIONS_INVOKED_MAX),
    ],
)
def test_an_unlimited_or_large_window_is_our_own_bound(negotiated, kept):
    invoked = InvokedOperations[None](negotiated)
    for _ in range(kept):
        invoked.begin(STORE, None)

    assert invoked.window == kept
    assert not invoked.has_room


@pytest.mark.parametrize("operations", [InvokedOperations, PerformedOperations])
def test_a_negative_window_is_our_error(operations):
    with pytest.raises(LocalError, match="-1 operations"):
        operations(-1)


@pytest.mark.slow
def test_ids_wrap_at_65535_and_pass_over_those_in_use():
    invoked = InvokedOperations[int](3)
    waiting = invoked.begin(STORE, 0)
    for expected in range(2, MESSAGE_ID_MAX + 1):
        assert invoked.begin(STORE, expected) == expected
        invoked.finish(stored(expected))

    assert waiting == 1
    assert invoked.begin(STORE, 0) == 2


@settings(max_examples=examples(100))
@given(st.integers(1, 5), st.lists(st.integers(0, 4), max_size=60))
def test_no_id_is_in_use_twice_and_each_response_closes_its_own(window, picks):
    invoked = InvokedOperations[int](window)
    invoked._last_message_id = MESSAGE_ID_MAX - 20
    open_ids = []
    for number, pick in enumerate(picks):
        if invoked.has_room and pick != 0:
            message_id = invoked.begin(STORE, number)
            assert 1 <= message_id <= MESSAGE_ID_MAX
            assert message_id not in {i for i, _ in open_ids}
            open_ids.append((message_id, number))
        elif open_ids:
            message_id, subject = open_ids.pop(pick % len(open_ids))
            assert invoked.finish(stored(message_id)).subject == subject
        assert len(invoked) == len(open_ids)
        assert invoked.has_room == (len(open_ids) < window)


def test_an_unexpected_response_is_told_and_changes_nothing():
    invoked = InvokedOperations[None](1)
    message_id = invoked.begin(STORE, None)

    assert invoked.finish(stored(99)) is None
    assert invoked.finish(stored(message_id)) is not None
    assert invoked.finish(stored(message_id)) is None


@pytest.mark.parametrize(
    "response",
    [CEchoResponse(responds_to=1, status=0), UnknownResponse(command_field=0x8020, responds_to=1, status=0)],
)
def test_a_response_of_another_command_is_the_peers_error(response):
    invoked = InvokedOperations[None](1)
    invoked.begin(STORE, None)

    with pytest.raises(PeerError, match=r"C-(ECHO|FIND)-RSP answers message 1, which was a C-STORE-RQ"):
        invoked.finish(response)
    assert len(invoked) == 1


def test_an_operation_given_up_leaves_room_and_its_late_response_is_unexpected():
    invoked = InvokedOperations[str](1)
    message_id = invoked.begin(STORE, "late")

    assert invoked.give_up(message_id).subject == "late"
    assert invoked.has_room
    assert invoked.finish(stored(message_id)) is None
    with pytest.raises(LocalError, match="No operation with message id 1"):
        invoked.give_up(message_id)


def test_open_operations_can_be_given_up_while_walking_over_them():
    invoked = InvokedOperations[str](3)
    for subject in "abc":
        invoked.begin(STORE, subject)

    assert [invoked.give_up(operation.message_id).subject for operation in invoked] == ["a", "b", "c"]


# As provider


def test_a_peer_within_its_window_is_never_paused():
    performed = PerformedOperations(2)

    assert performed.begin(echo(1)) is Admission.PERFORM
    assert performed.begin(echo(2)) is Admission.PERFORM
    assert len(performed) == 2
    assert not performed.pause
    performed.finish(1)
    assert performed.begin(echo(1)) is Admission.PERFORM
    assert not performed.pause


def test_a_peer_beyond_its_window_is_served_but_paused_until_it_is_back_within():
    performed = PerformedOperations(1)
    performed.begin(echo(1))

    assert performed.begin(echo(2)) is Admission.PERFORM
    assert performed.pause
    performed.finish(1)
    assert not performed.pause


def test_a_flood_beyond_the_window_ends_in_an_error():
    performed = PerformedOperations(2)
    for message_id in range(2 + OPERATIONS_EXCESS_MAX):
        assert performed.begin(echo(message_id)) is Admission.PERFORM

    with pytest.raises(PeerError, match="66 operations in progress, the negotiated window is 2"):
        performed.begin(echo(999))


@pytest.mark.parametrize("granted", [0, OPERATIONS_PERFORMED_MAX + 1, OPERATIONS_PERFORMED_MAX])
def test_an_unlimited_or_large_grant_is_our_own_bound(granted):
    performed = PerformedOperations(granted)
    for message_id in range(OPERATIONS_PERFORMED_MAX):
        performed.begin(echo(message_id))

    assert not performed.pause
    performed.begin(echo(OPERATIONS_PERFORMED_MAX))
    assert performed.pause


def test_a_message_id_in_progress_is_a_duplicate_and_the_first_goes_on():
    performed = PerformedOperations(8)
    performed.begin(echo(7))

    assert performed.begin(echo(7)) is Admission.DUPLICATE
    assert len(performed) == 1
    performed.finish(7)
    assert performed.begin(echo(7)) is Admission.PERFORM


def test_only_what_was_begun_is_finished():
    performed = PerformedOperations(1)

    with pytest.raises(LocalError, match="No operation with message id 4"):
        performed.finish(4)
