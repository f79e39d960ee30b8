"""The bars that Stowkeeper is held to: ratios of speed against other receivers, and bounds of memory."""

from dataclasses import dataclass

SYNCED = "stowkeeper"
UNSYNCED = "stowkeeper-nosync"
DROP_IN_B = "drop-in-b"
DROP_IN = "drop-in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A ratio of instances a second: `subject` over `against`, in the same round."""

    set_name: str
    subject: str
    against: str
    at_least: float
    aim: float | None = None
    associations: int = 1
    against_associations: int = 1


_OVER_ONE: dict[tuple[str, str], dict[str, float]] = {
    (SYNCED, "storescp-b"): {"ct": 0.8, "mr": 1.0, "tiny": 1.2, "big": 0.5},
    (UNSYNCED, "storescp-b"): {"ct": 1.0, "mr": 1.0, "tiny": 1.0, "big": 0.8},
    (SYNCED, "storescp"): {"ct": 1.5, "mr": 1.5, "tiny": 1.5, "big": 0.8},
    (SYNCED, "pynetdicom"): {"ct": 6.0, "mr": 8.0, "tiny": 8.0, "big": 3.0},
    (SYNCED, "orthanc"): {"ct": 6.0, "mr": 8.0, "tiny": 8.0, "big": 3.0},
    (SYNCED, "sink-slots"): {"ct": 0.6, "mr": 0.6, "tiny": 0.6, "big": 0.6},
}
_AIMS = {(SYNCED, "storescp-b"): {"ct": 1.0, "mr": 1.6, "tiny": 1.6, "big": 0.6}}
_OVER_SEVERAL = (4, 16)

BARS = (
    *(
        Bar(
            set_name=set_name,
            subject=subject,
            against=against,
            at_least=at_least,
            aim=_AIMS.get((subject, against), {}).get(set_name),
        )
        for (subject, against), bounds in _OVER_ONE.items()
        for set_name, at_least in bounds.items()
    ),
    *(
        Bar(set_name=set_name, subject=SYNCED, against=SYNCED, at_least=1.0, associations=count)
        for count in _OVER_SEVERAL
        for set_name in ("ct", "mr", "tiny")
    ),
    *(
        Bar(
            set_name=set_name,
            subject=SYNCED,
            against="storescp-fork",
            at_least=1.0,
            associations=count,
            against_associations=count,
        )
        for count in _OVER_SEVERAL
        for set_name in ("mr", "tiny")
    ),
)
_DROP_IN_OVER: dict[tuple[str, str], dict[str, float]] = {
    (DROP_IN_B, "storescp-b"): {"ct": 1.0, "mr": 1.0, "tiny": 1.0, "big": 0.8},
    (DROP_IN, "storescp"): {"ct": 1.5, "mr": 1.5, "tiny": 1.5, "big": 0.8},
}
DROP_IN_BARS = tuple(
    Bar(set_name=set_name, subject=subject, against=against, at_least=at_least)
    for (subject, against), bounds in _DROP_IN_OVER.items()
    for set_name, at_least in bounds.items()
)
SHIPPED_RATIO_MIN = 20.0
"""An unchanged storescu as shipped, into Stowkeeper, or into its drop-in command, over into storescp as shipped."""
LISTENING_SECONDS_MAX = 0.5
"""From the exec of the drop-in command until it listens, the median of several warm starts."""
PEAK_MEGABYTES_MAX = 150.0
IDLE_MEGABYTES_MAX = 0.2
"""What one idle association may add."""
LAST_PART_OF_FIRST_MIN = 0.9
"""Speed of the last tenth of a long run over that of the first."""
READY_AGAIN_SECONDS_MAX = 2.0
READY_AGAIN_INSTANCES = 1_000_000
