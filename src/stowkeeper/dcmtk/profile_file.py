"""Association negotiation profiles from a configuration file in DCMTK's format.

A profile says which abstract syntaxes an acceptor takes, with which transfer syntaxes in which order, which roles it
grants, and what it answers to extended negotiation. A file holds any number of them by name. Nothing here belongs to
one command: whoever accepts associations may use a profile.

Every part of a file is checked when it is loaded, whether or not a profile makes use of it, and the first mistake is
reported with its line. The format is described in docs/dcmtk-profiles.md.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

from stowkeeper.dcmtk.limits import APPLICATION_INFORMATION_BYTES_MAX, PROFILE_FILE_BYTES_MAX
from stowkeeper.dcmtk.preferences import LOCAL_BYTE_ORDER, ByteOrder, explicit_syntaxes
from stowkeeper.dcmtk.profile_lexer import Configuration, Entry, Section, capitals, parse_configuration
from stowkeeper.dcmtk.profile_names import uid_from_profile
from stowkeeper.upperlayer.items import Roles

TRANSFER_SYNTAXES: Final = "TRANSFERSYNTAXES"
PRESENTATION_CONTEXTS: Final = "PRESENTATIONCONTEXTS"
ROLE_SELECTION: Final = "SCPSCUROLESELECTION"
EXTENDED_NEGOTIATION: Final = "EXTENDEDNEGOTIATION"
PROFILES: Final = "PROFILES"

_ROLES: Final = {
    "SCU": Roles(scu=True, scp=False),
    "SCP": Roles(scu=False, scp=True),
    "BOTH": Roles(scu=True, scp=True),
}
_NO_LIST: Final = "\\"
"""What no section can be called: an empty reference means nothing, not a list without a name."""
_HEXADECIMAL: Final = frozenset("0123456789abcdefABCDEF")
_WHITE_SPACE: Final = dict.fromkeys(map(ord, " \t\n\v\f\r"))

_Value = TypeVar("_Value")


class ProfileError(Exception):
    """A profile file that cannot be used: the text names the file, the place in it and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileContext:
    """An abstract syntax that a profile accepts, with its transfer syntaxes, the most wanted first."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NegotiationProfile:
    """What an acceptor agrees to.

    `roles` are those of the association requestor, by abstract syntax; `application_information` is answered to SOP
    class extended negotiation, by abstract syntax and in the order of the file (PS3.7 §D.3.3.4, §D.3.3.5).
    """

    name: str
    contexts: tuple[ProfileContext, ...]
    roles: Mapping[str, Roles] = field(default_factory=lambda: MappingProxyType({}))
    application_information: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))

    def transfer_syntaxes_by_abstract_syntax(self) -> Mapping[str, tuple[str, ...]]:
        """Return the transfer syntaxes that are accepted, by abstract syntax."""
        return MappingProxyType(
            {context.abstract_syntax: context.transfer_syntaxes for context in reversed(self.contexts)}
        )

    def repeated_abstract_syntax(self) -> str | None:
        """Return an abstract syntax that the profile has twice, which no acceptor can tell apart."""
        seen = set()
        for context in self.contexts:
            if context.abstract_syntax in seen:
                return context.abstract_syntax
            seen.add(context.abstract_syntax)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFile:
    """The profiles of one file. `warnings` say what stands in the file and has no effect."""

    name: str
    profiles: Mapping[str, NegotiationProfile]
    warnings: tuple[str, ...] = ()

    def acceptor_profile(self, name: str) -> NegotiationProfile:
        """Return a profile for accepting associations; case and white space of its name do not matter.

        Raises ProfileError when the file has no such profile, or the profile has an abstract syntax twice.
        """
        profile = self.profiles.get(reference(name))
        if profile is None:
            known = ", ".join(self.profiles) or "none"
            raise ProfileError(f"{self.name}: there is no profile {name!r}; the file has {known}")
        repeated = profile.repeated_abstract_syntax()
        if repeated is not None:
            raise ProfileError(
                f"{self.name}: profile {profile.name} is not valid for an SCP:"
                f" it has {repeated} in more than one presentation context; leave one of them"
            )
        return profile


def reference(text: str) -> str:
    """Return the name of a section as a value refers to it: in capitals, without white space, nothing else changed."""
    return capitals(text.translate(_WHITE_SPACE))


def read_profile_file(path: str | os.PathLike[str]) -> ProfileFile:
    """Read a profile file; raise ProfileError when it cannot be read, or has a mistake."""
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read(PROFILE_FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise ProfileError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return load_profiles(data, name)


def load_profiles(data: bytes, name: str, *, byte_order: ByteOrder = LOCAL_BYTE_ORDER) -> ProfileFile:
    """Load the profiles of a file from its content; `name` stands for the file in messages.

    `byte_order` is what the names LocalEndianExplicit and OppositeEndianExplicit refer to. Raises ProfileError.
    """
    if len(data) > PROFILE_FILE_BYTES_MAX:
        raise ProfileError(f"{name}: is longer than {PROFILE_FILE_BYTES_MAX} bytes; divide it by profiles")
    return _Loader(name, parse_configuration(data), byte_order).load()


class _Loader:
    """Loads one file, supersection by supersection, each of which refers to those before it."""

    def __init__(self, file: str, configuration: Configuration, byte_order: ByteOrder) -> None:
        self._file = file
        self._configuration = configuration
        local, opposite = explicit_syntaxes(byte_order)
        self._relative_names = {"LocalEndianExplicit": local, "OppositeEndianExplicit": opposite}
        self._transfer_syntaxes: dict[str, list[str]] = {}
        self._contexts: dict[str, list[ProfileContext]] = {}
        self._roles: dict[str, dict[str, Roles]] = {}
        self._information: dict[str, dict[str, bytes]] = {}
        self._warnings: list[str] = [
            f"{file}, line {line}: this second [[{supersection}]] is not read; join it with the first"
            for supersection, line in configuration.repeated
        ]

    def load(self) -> ProfileFile:
        for section in self._sections(TRANSFER_SYNTAXES, required=True):
            self._load_transfer_syntaxes(section)
        for section in self._sections(PRESENTATION_CONTEXTS, required=True):
            self._load_contexts(section)
        for section in self._sections(ROLE_SELECTION, required=False):
            self._load_roles(section)
        for section in self._sections(EXTENDED_NEGOTIATION, required=False):
            self._load_information(section)
        profiles: dict[str, NegotiationProfile] = {}
        for section in self._sections(PROFILES, required=True):
            profile = self._profile(section)
            if section.name in profiles:
                words = "a second profile of this name; give it another one"
                raise self._error(PROFILES, section, None, words)
            profiles[section.name] = profile
        return ProfileFile(
            name=self._file, profiles=MappingProxyType(profiles), warnings=tuple(self._warnings)
        )

    # --- where things stand

    def _sections(self, supersection: str, *, required: bool) -> tuple[Section, ...]:
        sections = self._configuration.supersections.get(supersection)
        if sections is None and required:
            raise ProfileError(f"{self._file}: there is no [[{supersection}]]; every profile file needs one")
        return sections or ()

    def _error(self, supersection: str, section: Section, entry: Entry | None, text: str) -> ProfileError:
        line = section.line if entry is None else entry.line
        place = f"[[{supersection}]] [{section.name}]" + ("" if entry is None else f" {entry.key}")
        return ProfileError(f"{self._file}, line {line}: {place}: {text}")

    def _numbered(self, supersection: str, section: Section, key: str) -> Iterator[Entry]:
        """Yield key1, key2 and so on up to the first that is missing, and warn of all other entries."""
        entries = section.first_of_each_key()
        read: list[Entry] = []
        while (entry := entries.get(f"{key}{len(read) + 1}")) is not None:
            read.append(entry)
            yield entry
        self._warn_of_others(supersection, section, read, f"{key}{len(read) + 1} is missing")

    def _warn_of_others(self, supersection: str, section: Section, read: list[Entry], reason: str) -> None:
        taken = {id(entry) for entry in read}
        keys = {entry.key for entry in read}
        for entry in section.entries:
            if id(entry) not in taken:
                why = "an entry of this name stands before it" if entry.key in keys else reason
                self._warnings.append(str(self._error(supersection, section, entry, f"has no effect: {why}")))

    # --- what the supersections hold

    def _load_transfer_syntaxes(self, section: Section) -> None:
        for entry in self._numbered(TRANSFER_SYNTAXES, section, "TRANSFERSYNTAX"):
            uid = self._relative_names.get(entry.value) or uid_from_profile(entry.value)
            if uid is None:
                text = f"{entry.value!r} is not a transfer syntax: write its UID or its name, and no blank after it"
                raise self._error(TRANSFER_SYNTAXES, section, entry, text)
            self._transfer_syntaxes.setdefault(section.name, []).append(uid)

    def _load_contexts(self, section: Section) -> None:
        for entry in self._numbered(PRESENTATION_CONTEXTS, section, "PRESENTATIONCONTEXT"):
            if not section.name:
                words = "the section has no name, so no profile can refer to it"
                raise self._error(PRESENTATION_CONTEXTS, section, None, words)
            text, value = self._halves(PRESENTATION_CONTEXTS, section, entry)
            transfer_syntaxes = self._transfer_syntaxes.get(reference(value) or _NO_LIST)
            if transfer_syntaxes is None:
                words = f"the transfer syntax list {value!r} is not defined, or has no TransferSyntax1"
                raise self._error(PRESENTATION_CONTEXTS, section, entry, words)
            uid = self._abstract_syntax(text, PRESENTATION_CONTEXTS, section, entry)
            self._contexts.setdefault(section.name, []).append(
                ProfileContext(abstract_syntax=uid, transfer_syntaxes=tuple(transfer_syntaxes))
            )

    def _load_roles(self, section: Section) -> None:
        for entry in self._numbered(ROLE_SELECTION, section, "ROLE"):
            text, value = self._halves(ROLE_SELECTION, section, entry)
            roles = _ROLES.get(capitals(value))
            if roles is None:
                words = f"{value!r} is not a role: write SCU, SCP or BOTH, and no blank beside it"
                raise self._error(ROLE_SELECTION, section, entry, words)
            uid = self._abstract_syntax(text, ROLE_SELECTION, section, entry)
            of_list = self._roles.setdefault(section.name, {})
            self._once(uid, of_list, ROLE_SELECTION, section, entry)
            of_list[uid] = roles

    def _load_information(self, section: Section) -> None:
        for entry in self._numbered(EXTENDED_NEGOTIATION, section, "EXTENDEDNEGOTIATION"):
            text, value = self._halves(EXTENDED_NEGOTIATION, section, entry)
            if not value or len(value) % 2 or not _HEXADECIMAL.issuperset(value):
                words = (
                    "what follows the backslash has to be bytes, two hexadecimal digits each, nothing else"
                )
                raise self._error(EXTENDED_NEGOTIATION, section, entry, words)
            length = len(value) // 2
            if length > APPLICATION_INFORMATION_BYTES_MAX:
                words = f"{length} bytes are too many: at most {APPLICATION_INFORMATION_BYTES_MAX} are taken"
                raise self._error(EXTENDED_NEGOTIATION, section, entry, words)
            uid = self._abstract_syntax(text, EXTENDED_NEGOTIATION, section, entry)
            of_list = self._information.setdefault(section.name, {})
            self._once(uid, of_list, EXTENDED_NEGOTIATION, section, entry)
            of_list[uid] = bytes.fromhex(value)

    def _halves(self, supersection: str, section: Section, entry: Entry) -> tuple[str, str]:
        """Split a value at its first backslash."""
        text, backslash, value = entry.value.partition("\\")
        if not backslash:
            words = f"there is no backslash in {entry.value!r}: write CLASS\\VALUE"
            raise self._error(supersection, section, entry, words)
        return text, value

    def _abstract_syntax(self, text: str, supersection: str, section: Section, entry: Entry) -> str:
        uid = uid_from_profile(text)
        if uid is None:
            words = (
                f"{text!r} is not an abstract syntax: write its UID or name, no blank before the backslash"
            )
            raise self._error(supersection, section, entry, words)
        return uid

    def _once(
        self, uid: str, of_list: Mapping[str, object], supersection: str, section: Section, entry: Entry
    ) -> None:
        if uid in of_list:
            raise self._error(
                supersection, section, entry, f"{uid} stands in this list before; leave one of them"
            )

    def _profile(self, section: Section) -> NegotiationProfile:
        entries = section.first_of_each_key()
        context_entry = entries.get(PRESENTATION_CONTEXTS)
        if context_entry is None:
            text = "there is no PresentationContexts entry; every profile needs one"
            raise self._error(PROFILES, section, None, text)
        contexts = self._contexts.get(reference(context_entry.value))
        if contexts is None:
            text = f"the context list {context_entry.value!r} is not defined, or has no PresentationContext1"
            raise self._error(PROFILES, section, context_entry, text)
        of_profile = frozenset(context.abstract_syntax for context in contexts)
        roles = self._optional_list(section, entries.get(ROLE_SELECTION), self._roles.get, of_profile)
        information = self._optional_list(
            section, entries.get(EXTENDED_NEGOTIATION), self._information.get, of_profile
        )
        keys = (PRESENTATION_CONTEXTS, ROLE_SELECTION, EXTENDED_NEGOTIATION)
        read = [entries[key] for key in keys if key in entries]
        self._warn_of_others(PROFILES, section, read, "a profile has no such entry")
        return NegotiationProfile(
            name=section.name, contexts=tuple(contexts), roles=roles, application_information=information
        )

    def _optional_list(
        self,
        section: Section,
        entry: Entry | None,
        find: Callable[[str], Mapping[str, _Value] | None],
        of_profile: frozenset[str],
    ) -> Mapping[str, _Value]:
        """Return the list that an entry refers to; every class in it has to be in the profile."""
        if entry is None:
            return MappingProxyType({})
        found = find(reference(entry.value))
        if found is None:
            text = f"the list {entry.value!r} is not defined, or has no first entry"
            raise self._error(PROFILES, section, entry, text)
        for uid in found:
            if uid not in of_profile:
                text = f"{uid} of the list {entry.value!r} is not among the profile's presentation contexts"
                raise self._error(PROFILES, section, entry, text)
        return MappingProxyType(found)
