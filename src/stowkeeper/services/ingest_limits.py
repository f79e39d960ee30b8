"""The bounds of files that come by HTTP, each with its reason."""

FLUSH_BYTES = 1024 * 1024
"""Bytes that are handed to intake in one go: an image of half a megabyte is then written once."""

INGEST_LISTING_SECONDS = 15.0
"""How long the answer waits until the catalog lists the instance. While others come without a pause it takes some three seconds;
after this long the answer is given all the same, since it is kept."""

INGEST_LOOK_SECONDS_MIN = 0.02
"""First pause between two looks whether it is listed: on a quiet machine it takes some 40 ms. It doubles up to the next bound."""

INGEST_LOOK_SECONDS_MAX = 0.25
"""Longest pause between two looks: each is one small query."""
