"""Why an instance cannot be built."""

from stowkeeper.stow.reasons import FailureReason


class BuildError(Exception):
    """The instance cannot be built: `reason` is for the response, the text for people. It has no value of the metadata."""

    def __init__(self, reason: FailureReason, words: str) -> None:
        super().__init__(words)
        self.reason = reason
        self.words = words
