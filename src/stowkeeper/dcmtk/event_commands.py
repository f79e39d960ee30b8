"""Command lines that `storescp` runs behind an object (-xcr) and behind a study (-xcs), with their placeholders filled in.

The command is the operator's and goes to a shell as it stands. What a peer had a say in may stand anywhere in it, inside
quotes of any kind or outside of them, so quoting could not make it safe: the values hold only characters that mean
nothing to a shell anywhere. Harmless values come out as DCMTK writes them.

| placeholder | stands for | for an object | for a study |
|---|---|---|---|
| `#p` | the directory | yes | yes |
| `#f` | the file name in it | yes | no |
| `#a` | the calling AE title, in double quotes | yes | yes |
| `#c` | the called AE title, in double quotes | yes | yes |
| `#r` | the peer's host name or address | yes | yes |

They are replaced one kind after the other in this order. What is not replaced stays as it is, other signs behind `#` too.
"""

from dataclasses import dataclass
from typing import Final

from stowkeeper.dcmtk.sanitizing import sanitized, sanitizing_warning

_PATH: Final = "#p"
_FILE: Final = "#f"
_CALLING: Final = "#a"
_CALLED: Final = "#c"
_HOST: Final = "#r"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPeer:
    """Who sent what a command is about. For a study it is the peer of the latest association."""

    calling_ae_title: str
    called_ae_title: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCommand:
    """A command line for a shell; `warnings` say which values were changed, for the log."""

    text: str
    warnings: tuple[str, ...] = ()


def object_command(
    template: str, peer: EventPeer, *, directory: str | None, file_name: str | None
) -> EventCommand:
    """Return the command of -xcr for a received object.

    `directory` is the operator's own text, with the subdirectory behind it where there is one; `file_name` is as stored.
    Both are None with --ignore: their placeholders then stay.
    """
    text = template
    if directory is not None:
        text = text.replace(_PATH, directory)
    if file_name is not None:
        text = text.replace(_FILE, file_name)
    return _with_peer(text, peer)


def study_command(template: str, peer: EventPeer, *, directory: str) -> EventCommand:
    """Return the command of -xcs for an ended study in a directory."""
    return _with_peer(template.replace(_PATH, directory), peer)


def sanitized_title(title: str) -> str:
    """Return an AE title that means nothing to a shell, and is no option for the program that gets it."""
    clean = sanitized(title)
    return f"_{clean[1:]}" if clean.startswith("-") else clean


def sanitized_host(host: str) -> str:
    """Return a host name or address that is one word for a shell, and not an option for the program that gets it."""
    word = sanitized(host).replace(" ", "_")
    return f"_{word[1:]}" if word.startswith("-") else word


def _with_peer(text: str, peer: EventPeer) -> EventCommand:
    warnings = []
    for placeholder, what, value, clean, quote in (
        (
            _CALLING,
            "the calling AE title",
            peer.calling_ae_title,
            sanitized_title(peer.calling_ae_title),
            '"',
        ),
        (_CALLED, "the called AE title", peer.called_ae_title, sanitized_title(peer.called_ae_title), '"'),
        (_HOST, "the peer's host name", peer.host, sanitized_host(peer.host), ""),
    ):
        if placeholder in text:
            warning = sanitizing_warning(what, value, clean)
            if warning is not None:
                warnings.append(warning)
            text = text.replace(placeholder, f"{quote}{clean}{quote}")
    return EventCommand(text=text, warnings=tuple(warnings))
