"""Send with pynetdicom as `pynetdicom_sender.py` does, to a receiver that answers within a millisecond.

pynetdicom's own thread looks for messages between operations, and is only asked to pause before the next one: it may
look once more, and takes away the response of a receiver that was quick. The operation then waits for it in vain.
"""

import json
import sys
import threading
from typing import Any

from pynetdicom.association import Association
from pynetdicom_sender import SECONDS_MAX, send


class Checkpoint:
    """Stands in for the event at which that thread pauses: who clears it goes on when the thread is there."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_set = True
        self._is_paused = False

    def wait(self) -> None:
        """Pause while it is cleared; called by that thread in each of its rounds."""
        with self._changed:
            while not self._is_set:
                self._is_paused = True
                self._changed.notify_all()
                self._changed.wait()

    def clear(self) -> None:
        """Clear it, and wait until the thread has paused."""
        with self._changed:
            self._is_set = False
            self._changed.wait_for(lambda: self._is_paused, SECONDS_MAX)

    def set(self) -> None:
        """Let the thread go on."""
        with self._changed:
            self._is_set, self._is_paused = True, False
            self._changed.notify_all()


def main() -> None:
    """Send files and print their statuses, with the same arguments and in the same form."""
    send_c_store = Association.send_c_store

    def send_steadily(self: Association, *arguments: Any, **more: Any) -> Any:
        if not isinstance(self._reactor_checkpoint, Checkpoint):
            self._reactor_checkpoint = Checkpoint()  # type: ignore[assignment]  # all of an event that is asked for
        return send_c_store(self, *arguments, **more)

    Association.send_c_store = send_steadily  # type: ignore[method-assign]  # the one way to reach that event
    print(json.dumps(send(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])))


if __name__ == "__main__":
    main()
