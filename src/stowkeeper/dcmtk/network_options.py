"""The options about associations that both programs take, in the same words and bounds."""

from dataclasses import dataclass
from typing import Final

from stowkeeper.dcmtk.evaluation import Selection
from stowkeeper.dcmtk.grammar import Integers, NotWith, Option, Value

MAX_PDU_DEFAULT: Final = 16384
"""Bytes of a PDU we ask for, as DCMTK announces them (`-pdu`)."""
MAX_PDU_RANGE: Final = Integers(minimum=4096, maximum=131072)
ACSE_TIMEOUT_DEFAULT: Final = 30
"""Seconds in which the first PDU of a connection must be there (`-ta`)."""
MAX_PDU: Final = Option(
    long="--max-pdu",
    short="-pdu",
    values=(Value(label="[n]umber of bytes", integers=MAX_PDU_RANGE, default=str(MAX_PDU_DEFAULT)),),
    meaning="announce n bytes as the largest PDU we receive",
)
DISABLE_HOST_LOOKUP: Final = Option(
    long="--disable-host-lookup", short="-dhl", meaning="do not ask for the names of hosts, show addresses"
)


def timeout_options(*, signed: bool) -> tuple[Option, Option]:
    """Return the options for the two timeouts. Both start at 1; `signed` decides what a negative one is called."""
    allowed = Integers(minimum=1, signed=signed)
    acse = Option(
        long="--acse-timeout",
        short="-ta",
        values=(Value(label="[s]econds", integers=allowed, default=str(ACSE_TIMEOUT_DEFAULT)),),
        meaning="close a connection whose association is not requested within s seconds",
    )
    dimse = Option(
        long="--dimse-timeout",
        short="-td",
        values=(Value(label="[s]econds", integers=allowed, default="unlimited"),),
        meaning="wait at most s seconds for the next piece of a message",
    )
    return acse, dimse


def config_file_option(*rules: NotWith) -> Option:
    """Return the option that names an association negotiation profile, with a program's own rules."""
    return Option(
        long="--config-file",
        short="-xf",
        values=(Value(label="[f]ilename"), Value(label="[p]rofile")),
        rules=rules,
        meaning="negotiate associations by profile p of configuration file f",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileChoice:
    """An association negotiation profile as the command line names it: a file, and the profile in it."""

    file: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """How associations are held; times in seconds, None for no bound, sizes in bytes."""

    acse_timeout: int = ACSE_TIMEOUT_DEFAULT
    dimse_timeout: int | None = None
    max_pdu: int = MAX_PDU_DEFAULT
    host_lookup: bool = True


def network_options(selection: Selection) -> NetworkOptions:
    """Return the shared options of a checked selection."""
    return NetworkOptions(
        acse_timeout=selection.integer("--acse-timeout") or ACSE_TIMEOUT_DEFAULT,
        dimse_timeout=selection.integer("--dimse-timeout"),
        max_pdu=selection.integer("--max-pdu") or MAX_PDU_DEFAULT,
        host_lookup=not selection.has("--disable-host-lookup"),
    )


def profile_choice(selection: Selection) -> ProfileChoice | None:
    """Return the profile that a checked selection names, None when it names none."""
    values = selection.values("--config-file")
    return None if values is None else ProfileChoice(file=values[0], name=values[1])
