"""The settings of negotiation profiles: what one accepts, written out or taken from an association profile file."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from stowkeeper.app import limits
from stowkeeper.app.setting_fields import About, Table
from stowkeeper.app.setting_values import FilePath, SOPClassList, TransferSyntaxList, entries

if TYPE_CHECKING:
    from stowkeeper.app.settings_tables import Settings


class ProfileContext(Table):
    """Abstract syntaxes that a profile accepts, and how. One that no entry has is refused, save Verification."""

    abstract_syntaxes: Annotated[
        SOPClassList,
        Field(min_length=1),
        About("Abstract syntaxes to accept.", allowed="a list of SOP class UIDs or keywords, at least one"),
    ]
    transfer_syntaxes: Annotated[
        TransferSyntaxList,
        Field(min_length=1),
        About(
            'Transfer syntaxes to accept for them; with `choice = "preference"` the most wanted first.',
            allowed="a list of transfer syntax UIDs or keywords, at least one",
        ),
    ]
    roles: Annotated[
        Literal["scu", "scp", "both"],
        About(
            "Roles that a peer may take where it proposes roles (PS3.7 §D.3.3.4). With `scp` alone the context of a peer"
            " that proposes none is refused."
        ),
    ] = "scu"


class Profile(Table):
    """What is accepted in presentation contexts, under a name.

    `negotiation.profile` names the profile for everyone, a `[[peers]]` entry the one for its peer. A profile is written
    out in `[[profiles.contexts]]` entries below it, or taken from a file; `docs/dcmtk-profiles.md` describes such files.
    """

    name: Annotated[
        str,
        Field(min_length=1, max_length=limits.PEER_NAME_LETTERS_MAX, pattern=r"^[!-~]([ -~]*[!-~])?$"),
        About(
            "Name of the profile; no two share one.",
            allowed=f"1 to {limits.PEER_NAME_LETTERS_MAX} printable ASCII characters",
        ),
    ]
    choice: Annotated[
        Literal["as-proposed", "preference"],
        About(
            "Which of several acceptable transfer syntaxes is chosen: the first in the order of the proposal, or the first"
            " in that of `transfer_syntaxes`. In a profile of a file it is always the first in the file's order."
        ),
    ] = "as-proposed"
    contexts: Annotated[
        tuple[ProfileContext, ...],
        BeforeValidator(entries),
        About("What is accepted, one `[[profiles.contexts]]` table or several.", allowed="tables"),
    ] = ()
    file: Annotated[
        FilePath,
        About(
            "Association profile file in the format of DCMTK's `asconfig.txt`, in place of `contexts`.",
            allowed="a path",
            shape="path",
        ),
    ] = ""
    file_profile: Annotated[
        str,
        About("Name of the profile in the file. Not given: the same name as here.", allowed="a name"),
    ] = ""

    @model_validator(mode="after")
    def _check_that_it_says_one_thing(self) -> Self:
        if self.file and self.contexts:
            raise ValueError("a profile has contexts or a file, not both: leave one of them")
        if not self.file and not self.contexts:
            raise ValueError("a profile needs [[profiles.contexts]] below it, or a file")
        if self.file and "choice" in self.model_fields_set:
            raise ValueError("choice is for contexts: in a profile of a file the file's order counts")
        if self.file_profile and not self.file:
            raise ValueError("file_profile is a name in a file: give the file too")
        seen = set()
        for context in self.contexts:
            for uid in context.abstract_syntaxes:
                if uid in seen:
                    raise ValueError(f"it has the abstract syntax {uid} twice: leave one of them")
                seen.add(uid)
        return self


def profile_contradictions(settings: "Settings") -> Iterator[tuple[str, int | None, str]]:
    """Yield what contradicts the profiles there are: the key, of a list of peers the number of the one, and how."""
    names = [profile.name for profile in settings.profiles]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield "profiles", None, f'several profiles have the name "{name}"'
    known = f"[[profiles]] has {', '.join(names)}" if names else "add it as a [[profiles]] entry"
    if settings.negotiation.profile and settings.negotiation.profile not in names:
        text = f'there is no profile "{settings.negotiation.profile}"; {known}'
        yield "negotiation.profile", None, text
    for number, peer in enumerate(settings.peers):
        if peer.profile is not None and peer.profile not in names:
            yield "peers", number, f'there is no profile "{peer.profile}"; {known}'


def profile_warnings(settings: "Settings") -> Iterator[str]:
    """Yield what is allowed and has no effect beside a profile."""
    negotiation = settings.negotiation
    if not negotiation.profile:
        return
    for name, field in type(negotiation).model_fields.items():
        if name != "profile" and getattr(negotiation, name) != field.default:
            yield f'negotiation.{name} has no effect with negotiation.profile = "{negotiation.profile}"'
