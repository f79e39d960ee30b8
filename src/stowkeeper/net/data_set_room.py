"""The memory for data sets that are held whole, of all associations of a server together."""

import threading

from stowkeeper.net.limits import COLLECTED_BYTES_MAX


class DataSetRoom:
    """Bytes for data sets that wait to be whole, or to be answered. For any thread."""

    __slots__ = ("lock", "most", "taken")

    def __init__(self, most: int = COLLECTED_BYTES_MAX) -> None:
        self.lock = threading.Lock()
        self.most = most
        """Bytes that there are."""
        self.taken = 0
        """Bytes that are taken now."""

    def take_none(self) -> "RoomTaken":
        """Return what one data set has taken, which is nothing yet."""
        return RoomTaken(self)


class RoomTaken:
    """What one data set has taken of the room."""

    __slots__ = ("_count", "_room")

    def __init__(self, room: DataSetRoom) -> None:
        self._room = room
        self._count = 0

    def take(self, count: int) -> bool:
        """Take so many bytes more; False when there are not so many."""
        room = self._room
        with room.lock:
            if room.taken + count > room.most:
                return False
            room.taken += count
            self._count += count
            return True

    def give_back(self) -> None:
        """Give all of it back; a second time does nothing."""
        with self._room.lock:
            self._room.taken -= self._count
            self._count = 0
