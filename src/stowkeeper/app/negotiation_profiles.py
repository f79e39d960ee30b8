"""From profiles in the settings to what is accepted: files are read, and a mistake in one is a problem of its setting."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from stowkeeper.app.setting_problems import Problem, SettingsError
from stowkeeper.app.settings_of_profiles import Profile
from stowkeeper.app.settings_tables import Settings
from stowkeeper.dcmtk.profile_file import (
    NegotiationProfile,
    ProfileContext,
    ProfileError,
    read_profile_file,
)
from stowkeeper.dicom.sop_classes import is_known_not_storage
from stowkeeper.dicom.transfer_syntaxes import SHIPPED_TRANSFER_SYNTAXES
from stowkeeper.dicom.uid import VERIFICATION
from stowkeeper.upperlayer.items import Roles

_ROLES: Final = {
    "scu": Roles(scu=True, scp=False),
    "scp": Roles(scu=False, scp=True),
    "both": Roles(scu=True, scp=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePolicy:
    """What a profile accepts, as an acceptance policy holds it.

    `transfer_syntaxes` are by abstract syntax; of several the first in our order is chosen with `prefers_own_order`.
    """

    transfer_syntaxes: Mapping[str, tuple[str, ...]]
    prefers_own_order: bool
    roles: Mapping[str, Roles]
    application_information: Mapping[str, bytes]

    def accepts(self, abstract_syntax: str) -> bool:
        """Tell whether an abstract syntax is accepted."""
        return abstract_syntax in self.transfer_syntaxes


@dataclass(frozen=True, slots=True, kw_only=True)
class NegotiationProfiles:
    """The profiles of the settings by name; `warnings` say what in them has no effect."""

    policies: Mapping[str, ProfilePolicy]
    warnings: tuple[str, ...] = ()


def negotiation_profiles(settings: Settings) -> NegotiationProfiles:
    """Read the profiles that the settings name, and the files of those that are in files.

    Raises SettingsError, with the place of each setting that is at fault, and in its text file and line.
    """
    policies = {}
    warnings: list[str] = []
    problems = []
    place = settings.origin_of("profiles").place_of("profiles")
    for number, entry in enumerate(settings.profiles, start=1):
        try:
            profile = _profile_of(entry, warnings)
        except ProfileError as error:
            problems.append(Problem(place=f"{place}, entry {number}: file", text=str(error)))
            continue
        warnings.extend(_warnings_of(entry.name, profile))
        policies[entry.name] = _policy(
            profile, prefers_own_order=bool(entry.file) or entry.choice == "preference"
        )
    if problems:
        raise SettingsError(problems)
    return NegotiationProfiles(policies=MappingProxyType(policies), warnings=tuple(dict.fromkeys(warnings)))


def _profile_of(entry: Profile, warnings: list[str]) -> NegotiationProfile:
    if entry.file:
        file = read_profile_file(entry.file)
        warnings.extend(file.warnings)
        return file.acceptor_profile(entry.file_profile or entry.name)
    return NegotiationProfile(
        name=entry.name,
        contexts=tuple(
            ProfileContext(abstract_syntax=uid, transfer_syntaxes=context.transfer_syntaxes)
            for context in entry.contexts
            for uid in context.abstract_syntaxes
        ),
        roles={uid: _ROLES[context.roles] for context in entry.contexts for uid in context.abstract_syntaxes},
    )


def _policy(profile: NegotiationProfile, *, prefers_own_order: bool) -> ProfilePolicy:
    """Turn a profile into a policy that answers C-ECHO, whatever the profile says of Verification.

    Its own transfer syntaxes come first there, and those that the server accepts as shipped behind them.
    """
    transfer_syntaxes = dict(profile.transfer_syntaxes_by_abstract_syntax())
    transfer_syntaxes[VERIFICATION] = tuple(
        dict.fromkeys((*transfer_syntaxes.get(VERIFICATION, ()), *SHIPPED_TRANSFER_SYNTAXES))
    )
    return ProfilePolicy(
        transfer_syntaxes=MappingProxyType(transfer_syntaxes),
        prefers_own_order=prefers_own_order,
        roles=MappingProxyType({uid: roles for uid, roles in profile.roles.items() if uid != VERIFICATION}),
        application_information=profile.application_information,
    )


def _warnings_of(name: str, profile: NegotiationProfile) -> list[str]:
    others = [
        context.abstract_syntax
        for context in profile.contexts
        if context.abstract_syntax != VERIFICATION and is_known_not_storage(context.abstract_syntax)
    ]
    if not others:
        return []
    return [
        f'profile "{name}" accepts {others[0]}'
        + (f" and {len(others) - 1} more abstract syntaxes" if others[1:] else "")
        + ", known to be no storage: of such a service no operation is performed"
    ]
