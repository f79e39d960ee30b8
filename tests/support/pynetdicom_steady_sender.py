"""Send with pynetdicom as `pynetdicom_sender.py` does, to a receiver that answers within a millisecond.

pynetdicom's own thread looks for messages between operations, and is only asked to pause before the next one: it may
look once more, and takes away the response of a receiver that was quick. The operation then waits for it in vain.
"""

import json
import sys
import threading
import time
from typing import Any

from pynetdicom.association import Association
from pynetdicom_sender import send

PAUSE_SECONDS = 0.005
"""More than the thread's round of a millisecond."""


class Checkpoint(threading.Event):
    """An event that, when cleared, gives the thread that will wait for it the time to begin."""

    def clear(self) -> None:
        """Clear it, and be sure that the other thread has come to its wait."""
        super().clear()
        time.sleep(PAUSE_SECONDS)


def main() -> None:
    """Send files and print their statuses, with the same arguments and in the same form."""
    send_c_store = Association.send_c_store

    def send_steadily(self: Association, *arguments: Any, **more: Any) -> Any:
        if not isinstance(self._reactor_checkpoint, Checkpoint):
            self._reactor_checkpoint = Checkpoint()
            self._reactor_checkpoint.set()
        return send_c_store(self, *arguments, **more)

    Association.send_c_store = send_steadily  # type: ignore[method-assign]  # the one way to reach that event
    print(json.dumps(send(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])))


if __name__ == "__main__":
    main()
