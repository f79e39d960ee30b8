"""The policy `refuse`: an instance that is kept already is not taken again with other bytes.

Between the look at what is kept and the handing over to the finisher lies a sync. So whoever takes an instance in under this
policy has it for himself until then: a second one waits, and looks at what came of the first. It is kept where that failed.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from stowkeeper.archive.arrival import Content, DuplicatePolicy, content_of
from stowkeeper.archive.limits import TURN_SECONDS_MAX
from stowkeeper.archive.outcome import Refusal, Refused
from stowkeeper.archive.receipt import Receipt

_UNCONDITIONAL = nullcontext()


class FirstVersions:
    """Lets one at a time take in an instance under the policy `refuse`. It knows those of this process alone.

    `kept_contents` returns the contents of all versions that are kept, listed or on their way there.
    """

    def __init__(
        self, kept_contents: Callable[[str], set[Content]], *, seconds_max: float = TURN_SECONDS_MAX
    ) -> None:
        self._kept_contents = kept_contents
        self._seconds_max = seconds_max
        self._condition = threading.Condition()
        self._taken: set[str] = set()

    def admit(self, receipt: Receipt, policy: DuplicatePolicy) -> AbstractContextManager[None]:
        """Return a context within which the instance is written, synced and handed over.

        Entering it raises Refused where the policy refuses the instance, or others with its UID do not come to an end, and
        DatabaseUnavailable. The same bytes are welcome.
        """
        return self._turn(receipt) if policy is DuplicatePolicy.REFUSE else _UNCONDITIONAL

    @contextmanager
    def _turn(self, receipt: Receipt) -> Iterator[None]:
        uid = receipt.sop_instance_uid
        with self._condition:
            if not self._condition.wait_for(lambda: uid not in self._taken, self._seconds_max):
                raise Refused(
                    Refusal.OUT_OF_RESOURCES, "the instance is being received from another sender, try again"
                )
            self._taken.add(uid)
        try:
            kept = self._kept_contents(uid)
            if kept and content_of(receipt) not in kept:
                raise Refused(
                    Refusal.DUPLICATE, "the instance is kept already, with other bytes", (0x00001000,)
                )
            yield
        finally:
            with self._condition:
                self._taken.remove(uid)
                self._condition.notify_all()
