"""When something last came on an association, and how fast: what tells a peer that is idle, or drips, from one that works."""


class MessagePace:
    """The times of one association, in seconds of its clock. `bytes` are those since the pace is measured."""

    __slots__ = ("bytes", "last_message", "last_read", "since")

    def __init__(self) -> None:
        self.bytes = 0
        self.since = 0.0
        self.last_read = 0.0
        self.last_message = 0.0

    def begin(self, now: float) -> None:
        """Measure from here on how fast a message comes."""
        self.since = now
        self.bytes = 0

    def message_began(self, now: float) -> None:
        """Know of a new message."""
        self.last_message = now
        self.begin(now)

    def is_too_slow(self, now: float, seconds: float, bytes_per_second_min: int) -> bool:
        """Tell whether a message came too slowly over so many seconds; with no least pace, whether nothing came."""
        if not bytes_per_second_min:
            return now - max(self.last_read, self.since) >= seconds
        if now - self.since < seconds:
            return False
        if self.bytes == 0 or self.bytes < bytes_per_second_min * seconds:
            return True
        self.begin(now)
        return False
