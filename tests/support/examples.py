"""How many examples a property test tries: a part of them in the quick profile of `make check`."""

import hypothesis

AS_SHIPPED = 100
"""So many examples has a test whose settings name no number, outside the quick profile."""


def examples(number: int) -> int:
    """Return how many examples stand for `number` of them in the profile that the run has."""
    return max(1, number * hypothesis.settings.default.max_examples // AS_SHIPPED)
