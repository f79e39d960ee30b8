"""The option table of `storescp`: processes, network and security; what is written is in `storescp_output_table.py`."""

from functools import cache
from typing import Final

from stowkeeper.dcmtk.grammar import Block, Group, Integers, NotWith, Option, OptionTable, Section, Value
from stowkeeper.dcmtk.log_options import GENERAL, LOG_STAGE
from stowkeeper.dcmtk.network_options import (
    DISABLE_HOST_LOOKUP,
    MAX_PDU,
    config_file_option,
    timeout_options,
)
from stowkeeper.dcmtk.preferences import Preference
from stowkeeper.dcmtk.storescp_output_table import EVENTS, EVENTS_STAGE, OUTPUT, OUTPUT_STAGE
from stowkeeper.dcmtk.tls_table import ALL_PROFILES, tls_section, tls_stage, unavailable_options
from stowkeeper.net.tls_profiles import SecurityProfile

SOCKET_TIMEOUT_DEFAULT: Final = 60
"""Seconds after which a connection that carries nothing is given up (`-ts`)."""
AE_TITLE_DEFAULT: Final = "STORESCP"

_PREFERENCES: Final = {
    Preference.UNCOMPRESSED: ("--prefer-uncompr", "explicit VR in the byte order of this machine"),
    Preference.LITTLE_ENDIAN: ("--prefer-little", "explicit VR little endian"),
    Preference.BIG_ENDIAN: ("--prefer-big", "explicit VR big endian"),
    Preference.JPEG_LOSSLESS: ("--prefer-lossless", "JPEG lossless, process 14 with selection value 1"),
    Preference.JPEG_8_BIT: ("--prefer-jpeg8", "JPEG lossy for 8 bits, process 1"),
    Preference.JPEG_12_BIT: ("--prefer-jpeg12", "JPEG lossy for 12 bits, processes 2 and 4"),
    Preference.JPEG_2000_LOSSLESS: ("--prefer-j2k-lossless", "JPEG 2000 lossless"),
    Preference.JPEG_2000_LOSSY: ("--prefer-j2k-lossy", "JPEG 2000, lossless or lossy"),
    Preference.JPEG_LS_LOSSLESS: ("--prefer-jls-lossless", "JPEG-LS lossless"),
    Preference.JPEG_LS_LOSSY: ("--prefer-jls-lossy", "JPEG-LS near-lossless"),
    Preference.MPEG2_MAIN_LEVEL: ("--prefer-mpeg2", "MPEG-2, Main Profile at Main Level"),
    Preference.MPEG2_HIGH_LEVEL: ("--prefer-mpeg2-high", "MPEG-2, Main Profile at High Level"),
    Preference.MPEG4: ("--prefer-mpeg4", "MPEG-4 AVC/H.264, High Profile at level 4.1"),
    Preference.MPEG4_BD: ("--prefer-mpeg4-bd", "the same, compatible with BD"),
    Preference.MPEG4_2D: ("--prefer-mpeg4-2-2d", "MPEG-4 AVC/H.264, High Profile at level 4.2, for 2D video"),
    Preference.MPEG4_3D: ("--prefer-mpeg4-2-3d", "MPEG-4 AVC/H.264, High Profile at level 4.2, for 3D video"),
    Preference.MPEG4_STEREO: ("--prefer-mpeg4-2-st", "MPEG-4 AVC/H.264, Stereo High Profile at level 4.2"),
    Preference.HEVC: ("--prefer-hevc", "HEVC/H.265, Main Profile at level 5.1"),
    Preference.HEVC_10: ("--prefer-hevc10", "HEVC/H.265, Main 10 Profile at level 5.1"),
    Preference.RLE: ("--prefer-rle", "RLE lossless"),
    Preference.DEFLATED: ("--prefer-deflated", "deflated explicit VR little endian"),
    Preference.IMPLICIT_ONLY: ("--implicit", "implicit VR little endian and nothing else"),
    Preference.ACCEPT_ALL: ("--accept-all", "every transfer syntax there is"),
}
"""Long name and meaning of each preference; the rightmost on a command line counts."""

PREFERENCES: Final = {long: preference for preference, (long, _) in _PREFERENCES.items()}

_WITH_PROFILE: Final = frozenset({Preference.UNCOMPRESSED})
_SECONDS_OF_SLEEP = Value(label="[s]econds", integers=Integers(), default="0")


def _process_section() -> Section:
    single = Option(long="--single-process", is_default=True, meaning="one association at a time")
    fork = Option(long="--fork", meaning="a process of its own for each association")
    return Section(title="multi-process options", groups=(Group(options=(single, fork)),))


def _preference_options() -> tuple[Option, ...]:
    return tuple(
        Option(
            long=long,
            short=preference.value,
            is_default=preference is Preference.UNCOMPRESSED,
            meaning=meaning,
        )
        for preference, (long, meaning) in _PREFERENCES.items()
    )


def _config_file() -> Option:
    others = [long for long, preference in PREFERENCES.items() if preference not in _WITH_PROFILE]
    return config_file_option(*(NotWith(others=(long,)) for long in (*others, "--promiscuous")))


def _access_group() -> Group:
    full = Option(long="--access-full", short="-ac", is_default=True, meaning="every host may connect")
    control = Option(
        long="--access-control",
        short="+ac",
        meaning="only hosts that hosts.allow and hosts.deny admit for the daemon storescp",
    )
    return Group(title="which hosts may connect", options=(full, control))


_INETD = Option(
    long="--inetd",
    short="-id",
    rules=(NotWith(others=("--fork",)),),
    meaning="serve the one connection that a super server such as inetd hands over; needs no port",
)
_SOCKET_TIMEOUT = Option(
    long="--socket-timeout",
    short="-ts",
    values=(
        Value(
            label="[s]econds",
            integers=Integers(minimum=-1, signed=True),
            default=str(SOCKET_TIMEOUT_DEFAULT),
        ),
    ),
    meaning="give up a connection that carries nothing for s seconds; 0 for never",
)
_AE_TITLE = Option(
    long="--aetitle",
    short="-aet",
    values=(Value(label="[a]etitle", default=AE_TITLE_DEFAULT),),
    meaning="set our application entity title; as with DCMTK no peer gets to see it",
)


def _other_network_group() -> Group:
    return Group(
        title="other network options",
        options=(
            _INETD,
            _SOCKET_TIMEOUT,
            *timeout_options(signed=True),
            _AE_TITLE,
            MAX_PDU,
            DISABLE_HOST_LOOKUP,
            Option(long="--refuse", meaning="reject every association"),
            Option(long="--reject", meaning="reject associations without an implementation class UID"),
            Option(long="--ignore", meaning="answer Success to what is received, and store nothing"),
            Option(
                long="--sleep-after",
                values=(_SECONDS_OF_SLEEP,),
                meaning="wait s seconds behind each object",
            ),
            Option(
                long="--sleep-during",
                values=(_SECONDS_OF_SLEEP,),
                meaning="wait s seconds behind each piece of an object",
            ),
            Option(
                long="--abort-after",
                meaning="abort the association when an object has been received, without an answer",
            ),
            Option(long="--abort-during", meaning="abort the association while an object is received"),
            Option(
                long="--promiscuous",
                short="-pm",
                meaning="also take SOP classes that are not known at all",
            ),
            Option(
                long="--uid-padding",
                short="-up",
                meaning="take no notice of blanks behind the UIDs of an object",
            ),
        ),
    )


def _network_section() -> Section:
    return Section(
        title="network options",
        groups=(
            Group(title="association negotiation profile", options=(_config_file(),)),
            Group(title="preferred transfer syntax", options=_preference_options()),
            _access_group(),
            _other_network_group(),
        ),
    )


_PROCESS_STAGE: Final[tuple[Block, ...]] = (("--inetd",), ("--single-process", "--fork"))
_NETWORK_STAGE: Final[tuple[Block, ...]] = (
    tuple(PREFERENCES),
    ("--access-full", "--access-control"),
    ("--socket-timeout",),
    ("--acse-timeout",),
    ("--dimse-timeout",),
    ("--aetitle",),
    ("--max-pdu",),
    ("--disable-host-lookup",),
    ("--refuse",),
    ("--reject",),
    ("--ignore",),
    ("--sleep-after",),
    ("--sleep-during",),
    ("--abort-after",),
    ("--abort-during",),
    ("--promiscuous",),
    ("--uid-padding",),
)


@cache
def storescp_table(available: frozenset[SecurityProfile] = ALL_PROFILES) -> OptionTable:
    """Return the table of `storescp` where the TLS library can do the given security profiles."""
    return OptionTable(
        tool="storescp",
        title="receive DICOM objects into files",
        port_meaning="TCP port to listen on; not needed with --inetd",
        is_port_required=False,
        sections=(
            GENERAL,
            _process_section(),
            _network_section(),
            tls_section(available),
            OUTPUT,
            EVENTS,
        ),
        stages={
            "process": _PROCESS_STAGE,
            "log": LOG_STAGE,
            "network": _NETWORK_STAGE,
            "profile": (("--config-file",),),
            "output": OUTPUT_STAGE,
            "events": EVENTS_STAGE,
            "tls": tls_stage(available),
        },
        unavailable=unavailable_options(available),
    )
