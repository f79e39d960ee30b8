"""Values that options of several commands take: moments and rates, with errors that say what is allowed."""

import re
from datetime import UTC, datetime, timedelta

import click

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(r"([0-9]{1,4})([mhdw])")
_FORMATS = (
    "%Y",
    "%Y-%m",
    "%Y-%m-%d",
    "%Y-%m-%dT%H",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M:%S.%f",
)


def moment(value: str) -> str:
    """Read a time in UTC, cut short where one likes, or how long ago it is.

    Returns the beginning of a time in ISO 8601, which is compared as text.
    """
    text = value.strip()
    age = _AGE.fullmatch(text)
    if age is not None:
        then = datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        return then.strftime("%Y-%m-%dT%H:%M:%S")
    text = text.replace(" ", "T").removesuffix("Z")
    for known in _FORMATS:
        try:
            return datetime.strptime(text, known).strftime(known)  # noqa: DTZ007 - only its form is of interest
        except ValueError:
            continue
    raise click.BadParameter(
        f"{value!r} is no time. Allowed: a time in UTC such as 2026-03-02, 2026-03 or 2026-03-02T08:15, or an age"
        " such as 90m, 12h, 7d or 2w."
    )


def byte_rate(value: str) -> int:
    """Read a number of bytes a second, such as 50MB."""
    from stowkeeper.app.setting_values import parse_size  # noqa: PLC0415 - `ls` need not pay for it

    try:
        size = parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if not isinstance(size, int) or size < 1:
        raise click.BadParameter("A rate is at least one byte a second.")
    return size
