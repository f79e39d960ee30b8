"""A requestor and an acceptor wired together, whatever happens in between: splits, timers, garbage, loss, aborts."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from upperlayer_samples import ARTIM, MAX, accept, feed, join, p_data, pdv, request

from stowkeeper.upperlayer.connection import UpperLayerConnection
from stowkeeper.upperlayer.encode import encode_pdu
from stowkeeper.upperlayer.events import Aborted, PDVFragment, ProtocolFault
from stowkeeper.upperlayer.pdu import (
    REJECTED_CALLED_AE_TITLE,
    Abort,
    AssociateAC,
    AssociateRQ,
    ReleaseRP,
    ReleaseRQ,
)
from stowkeeper.upperlayer.states import Role, State
from support.examples import examples

ASKED = request()
TIMED = {State.STA2_AWAITING_ASSOCIATE_RQ, State.STA13_AWAITING_TRANSPORT_CLOSE}
FOREIGN = [
    encode_pdu(ASKED),
    encode_pdu(accept(ASKED)),
    encode_pdu(REJECTED_CALLED_AE_TITLE),
    encode_pdu(ReleaseRQ()),
    encode_pdu(ReleaseRP()),
    encode_pdu(Abort()),
    p_data(pdv(b"foreign")),
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x01\x00\xff\xff\xff\xff",
]
STATES_OF = {
    Role.ACCEPTOR: {"Sta1", "Sta2", "Sta3", "Sta6", "Sta7", "Sta8", "Sta10", "Sta12", "Sta13"},
    Role.REQUESTOR: {"Sta1", "Sta4", "Sta5", "Sta6", "Sta7", "Sta8", "Sta9", "Sta11", "Sta13"},
}


HAZARDS = ["none", "none", "abort", "garbage", "loss", "time"]
"""What else can happen in a run. One kind at a time, or hardly any would come far."""


def only_with(hazard):
    return precondition(lambda self: self.hazard == hazard)


class Side:
    """One connection with the bytes on their way to it, and what it was told."""

    def __init__(self, role):
        self.role = role
        self.connection = UpperLayerConnection(role, max_pdu_length_local=MAX, artim_seconds=ARTIM)
        self.incoming = b""
        self.peer_closed = False
        self.knows_end = False
        self.events = []
        self.sent = []
        self.tainted = False

    def take(self, events):
        assert not (events and self.knows_end)
        self.events += events
        self.knows_end = self.connection.close_expected


class AssociationPair(RuleBasedStateMachine):
    @initialize(is_established=st.booleans(), hazard=st.sampled_from(HAZARDS))
    def open(self, is_established, hazard):
        self.hazard = hazard
        self.now = 0.0
        self.requestor = Side(Role.REQUESTOR)
        self.acceptor = Side(Role.ACCEPTOR)
        self.sides = [self.requestor, self.acceptor]
        for side in self.sides:
            side.connection.connection_opened(self.now)
        if is_established:
            self.ask()
            self.deliver(1, 1, None)
            self.answer(accepts=True)
            self.deliver(0, 1, None)

    def other(self, side):
        return self.acceptor if side is self.requestor else self.requestor

    def move(self, side):
        """Put what a side sends on the wire, and close its end when it wants that."""
        other = self.other(side)
        data = side.connection.data_to_send()
        if not side.peer_closed and not other.peer_closed:
            other.incoming += data
        if side.connection.close_expected:
            other.peer_closed = True

    @precondition(lambda self: self.requestor.connection.state is State.STA1_IDLE)
    @rule()
    def ask(self):
        if not self.requestor.connection.close_expected:
            self.requestor.connection.request(ASKED, self.now)
            self.move(self.requestor)

    @precondition(lambda self: self.acceptor.connection.state is State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE)
    @rule(accepts=st.sampled_from([True, True, True, False]))
    def answer(self, accepts):
        connection = self.acceptor.connection
        if accepts:
            connection.accept(accept(connection.association_request), self.now)
        else:
            connection.reject(REJECTED_CALLED_AE_TITLE, self.now)
        self.move(self.acceptor)

    @rule(which=st.integers(0, 1), share=st.sampled_from([1, 2, 7]), step=st.sampled_from([None, 1, 5, 13]))
    def deliver(self, which, share, step):
        side = self.sides[which]
        taken = -(-len(side.incoming) // share)
        data, side.incoming = side.incoming[:taken], side.incoming[taken:]
        side.take(feed(side.connection, data, self.now, step))
        self.move(side)

    @rule(which=st.integers(0, 1), pieces=st.lists(st.binary(max_size=20), min_size=1, max_size=3))
    def send(self, which, pieces):
        side = self.sides[which]
        if side.connection.can_send_p_data:
            side.connection.send_p_data(p_data(*(pdv(piece) for piece in pieces)))
            side.sent += pieces
            self.move(side)

    @rule(which=st.integers(0, 1))
    def release(self, which):
        side = self.sides[which]
        if side.connection.can_release:
            side.connection.release(self.now)
            self.move(side)

    @rule(which=st.integers(0, 1))
    def respond(self, which):
        side = self.sides[which]
        if side.connection.can_respond_to_release:
            side.connection.respond_to_release(self.now)
            self.move(side)

    @only_with("abort")
    @rule(which=st.integers(0, 1), source=st.sampled_from([0, 2]))
    def abort(self, which, source):
        side = self.sides[which]
        side.connection.abort(source, 0, self.now)
        side.knows_end = side.connection.close_expected
        self.move(side)

    @only_with("garbage")
    @rule(
        which=st.integers(0, 1),
        data=st.sampled_from(FOREIGN) | st.binary(min_size=1, max_size=30),
        front=st.booleans(),
    )
    def inject(self, which, data, front):
        side = self.sides[which]
        if not side.peer_closed:
            side.incoming = data + side.incoming if front else side.incoming + data
            side.tainted = True

    @rule(which=st.integers(0, 1))
    def close(self, which):
        side = self.sides[which]
        if side.peer_closed and not side.incoming:
            side.take(side.connection.receive_eof(self.now))
            self.move(side)

    @only_with("loss")
    @rule(which=st.integers(0, 1))
    def lose(self, which):
        for side in (self.sides[which], self.sides[not which]):
            side.incoming = b""
            side.peer_closed = True
            side.take(side.connection.receive_eof(self.now))
            self.move(side)

    @only_with("time")
    @rule(seconds=st.sampled_from([ARTIM / 10, ARTIM]))
    def wait(self, seconds):
        self.now += seconds
        for side in self.sides:
            deadline = side.connection.get_timer()
            events = side.connection.handle_timer(self.now)
            assert bool(events) == (deadline is not None and deadline <= self.now)
            side.take(events)
            self.move(side)

    @invariant()
    def artim_runs_exactly_while_waiting_for_the_peer(self):
        for side in getattr(self, "sides", []):
            deadline = side.connection.get_timer()
            assert (deadline is not None) == (side.connection.state in TIMED)
            assert deadline is None or deadline <= self.now + ARTIM

    @invariant()
    def each_side_is_in_a_state_of_its_role(self):
        for side in getattr(self, "sides", []):
            connection = side.connection
            assert connection.state.value in STATES_OF[side.role]
            if connection.close_expected:
                assert connection.state is State.STA1_IDLE
            assert connection.can_send_p_data == (connection.state.value in {"Sta6", "Sta8"})

    @invariant()
    def what_is_told_is_in_order(self):
        for side in getattr(self, "sides", []):
            endings = [event for event in side.events if isinstance(event, Aborted)]
            assert len(endings) <= 1
            fragments = [index for index, event in enumerate(side.events) if isinstance(event, PDVFragment)]
            if endings and fragments:
                assert fragments[-1] < side.events.index(endings[0])
            if fragments:
                assert side.connection.accepted_contexts
            if not side.tainted:
                received = [item[3] for item in join(side.events) if type(item) is tuple and len(item) == 4]
                assert received == self.other(side).sent[: len(received)]

    @invariant()
    def nobody_is_blamed_where_nothing_foreign_came(self):
        sides = getattr(self, "sides", [])
        if not any(side.tainted for side in sides):
            assert not any(isinstance(event, ProtocolFault) for side in sides for event in side.events)

    def teardown(self):
        """Whatever happened: with bytes, time and one abort each side comes to its end."""
        if not hasattr(self, "sides"):
            return
        for side in self.sides:
            self.deliver(self.sides.index(side), 1, None)
        for side in self.sides:
            side.connection.abort(0, 0, self.now)
            side.knows_end = side.connection.close_expected
        self.wait(ARTIM)
        for side in self.sides:
            assert side.connection.close_expected
            assert side.connection.state is State.STA1_IDLE
            assert side.connection.get_timer() is None


TestAssociationPair = AssociationPair.TestCase
TestAssociationPair.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)


def test_the_pair_comes_through_an_orderly_association():
    """Keeps the machine above honest: with nothing going wrong everything arrives."""
    pair = AssociationPair()
    pair.open(is_established=False, hazard="none")
    pair.ask()
    pair.deliver(1, 1, 1)
    assert type(pair.acceptor.connection.association_request) is AssociateRQ
    pair.answer(accepts=True)
    pair.deliver(0, 1, 5)
    assert type(pair.requestor.events[0].response) is AssociateAC
    pair.send(0, [b"one", b"two"])
    pair.deliver(1, 7, 5)
    pair.deliver(1, 1, None)
    assert [item[3] for item in join(pair.acceptor.events)[1:]] == [b"one", b"two"]
    pair.release(0)
    pair.deliver(1, 1, None)
    pair.respond(1)
    pair.deliver(0, 1, None)
    assert pair.requestor.connection.close_expected
    pair.close(1)
    assert pair.acceptor.connection.close_expected
    pair.teardown()
