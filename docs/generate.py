# noqa: INP001 - a script beside the pages that it serves, in no package
"""Rewrite the parts of the documents that are made from the code: tables of the standard, settings, exit codes.

Run `python docs/generate.py` after a change of what they are made from, with the package installed or
`PYTHONPATH=src`. What stands between `<!-- generated:NAME -->` and `<!-- /generated -->` belongs to this script;
everything else on a page is written by hand. `--check` writes nothing and exits 1 when a page is out of date.
"""

import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from stowkeeper.app.exit_codes import MEANINGS
from stowkeeper.app.setting_fields import Setting, Table, toml_text
from stowkeeper.app.setting_sources import all_settings, entry_settings
from stowkeeper.app.settings_of_dicomweb import DICOMwebSettings
from stowkeeper.app.settings_of_events import EventsSettings, EventTargetSettings, ExportFolderSettings
from stowkeeper.app.settings_of_forwarding import ForwardingRuleSettings
from stowkeeper.app.settings_of_log import LogSettings
from stowkeeper.app.settings_of_origin_servers import OriginServerSettings
from stowkeeper.app.settings_of_peers import Peer
from stowkeeper.app.settings_of_profiles import Profile, ProfileContext
from stowkeeper.app.settings_of_retention import RetentionRuleSettings
from stowkeeper.app.settings_of_services import CommitmentSettings, HTTPSettings, JobsSettings
from stowkeeper.app.settings_of_tls import TLSSettings
from stowkeeper.app.settings_of_tracing import TracingSettings
from stowkeeper.app.settings_tables import (
    AccessSettings,
    DicomSettings,
    NegotiationSettings,
    StorageSettings,
)
from stowkeeper.dcmtk.dcmrecv_options import dcmrecv_table
from stowkeeper.dcmtk.grammar import Option, OptionTable
from stowkeeper.dcmtk.negotiation import DEFAULT_STORAGE_CLASSES
from stowkeeper.dcmtk.preferences import SINGLE_SYNTAXES, Preference, accepted_transfer_syntaxes
from stowkeeper.dcmtk.profile_names import NAMES_BY_UID
from stowkeeper.dcmtk.storage_class_table import STORAGE_CLASSES
from stowkeeper.dcmtk.storescp_table import storescp_table
from stowkeeper.dcmtk.usage import options_page
from stowkeeper.dicom.sop_classes import SOP_CLASSES, Origin, SOPClass, SOPClassKind
from stowkeeper.dicom.transfer_syntaxes import SHIPPED_TRANSFER_SYNTAXES, TRANSFER_SYNTAXES, TransferSyntax
from stowkeeper.dicom.uid import (
    DICOM_APPLICATION_CONTEXT,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
)
from stowkeeper.net.tls_profiles import PROFILES, ProfileRules, TLSVersion
from stowkeeper.services.arrivals import COLUMNS, KEYWORDS
from stowkeeper.upperlayer.negotiation import is_accepted_as_shipped

FOLDER = Path(__file__).resolve().parent
COMMAND = "PYTHONPATH=src python docs/generate.py"

_OPENING = re.compile(r"<!-- generated:([a-z-]+) -->")
_CLOSING = "<!-- /generated -->"


class MarkerError(ValueError):
    """A page has a marker without its partner, or names a part that does not exist."""


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# The conformance statement.


def _identification() -> str:
    return _table(
        ("Item", "Value"),
        [
            ("Application Context Name", f"`{DICOM_APPLICATION_CONTEXT}`"),
            ("Implementation Class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
            ("Implementation Version Name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
        ],
    )


def _place(known: SOPClass) -> str:
    if known.kind is SOPClassKind.NON_PATIENT_STORAGE:
        return "class"
    return "study if it names one" if known.origin is Origin.PRIVATE else "study"


def _storage_classes() -> str:
    stored = (known for known in SOP_CLASSES.values() if known.kind is not SOPClassKind.OTHER)
    rows = [(known.name, f"`{known.uid}`", known.origin.value, "Y", "Y", _place(known)) for known in stored]
    return _table(("SOP Class", "UID", "Origin", "SCU", "SCP", "Kept under"), rows)


def _other_classes() -> str:
    refused = (known for known in SOP_CLASSES.values() if not is_accepted_as_shipped(known.uid))
    return _table(
        ("SOP Class", "UID", "Origin"),
        [(known.name, f"`{known.uid}`", known.origin.value) for known in refused],
    )


def _encoding(known: TransferSyntax) -> str:
    order = "little endian" if known.little_endian else "big endian"
    words = [f"{'implicit' if known.implicit_vr else 'explicit'} VR, {order}"]
    if known.deflated:
        words.append("deflated")
    if known.encapsulated:
        words.append("pixel data encapsulated")
    return ", ".join(words)


_LOSS = {True: "lossless", False: "lossy", None: "open"}


def _syntax_rows(chosen: Iterable[TransferSyntax]) -> Iterator[tuple[str, ...]]:
    for known in chosen:
        name = f"{known.name} (retired)" if known.retired else known.name
        yield name, f"`{known.uid}`", _encoding(known), _LOSS[known.lossless]


_SYNTAX_HEADING = ("Transfer Syntax", "UID", "Encoding of the data set", "Pixel data")


def _shipped_syntaxes() -> str:
    return _table(_SYNTAX_HEADING, _syntax_rows(TRANSFER_SYNTAXES[uid] for uid in SHIPPED_TRANSFER_SYNTAXES))


def _other_syntaxes() -> str:
    others = (known for uid, known in TRANSFER_SYNTAXES.items() if uid not in SHIPPED_TRANSFER_SYNTAXES)
    return _table(_SYNTAX_HEADING, _syntax_rows(others))


# The reference pages of settings and exit codes.


_SETTINGS_TABLES: Mapping[str, type[Table]] = {
    "dicom": DicomSettings,
    "tls": TLSSettings,
    "negotiation": NegotiationSettings,
    "access": AccessSettings,
    "storage": StorageSettings,
    "http": HTTPSettings,
    "dicomweb": DICOMwebSettings,
    "jobs": JobsSettings,
    "commitment": CommitmentSettings,
    "events": EventsSettings,
    "tracing": TracingSettings,
    "log": LogSettings,
}
_ENTRIES: Mapping[str, type[Table]] = {
    "profiles": Profile,
    "profiles.contexts": ProfileContext,
    "peers": Peer,
    "origin_servers": OriginServerSettings,
    "retention_rules": RetentionRuleSettings,
    "forwarding_rules": ForwardingRuleSettings,
    "event_targets": EventTargetSettings,
    "export_folders": ExportFolderSettings,
}


def _settings() -> str:
    settings = all_settings().values()
    sections = [
        "## Above all tables\n\n" + _settings_table(setting for setting in settings if not setting.table),
    ]
    for name, model in _SETTINGS_TABLES.items():
        sections.append(
            f"## `[{name}]`\n\n{inspect.getdoc(model)}\n\n"
            + _settings_table(setting for setting in settings if setting.table == name)
        )
    for name, entry in _ENTRIES.items():
        sections.append(
            f"## `[[{name}]]`\n\n{inspect.getdoc(entry)}\n\n"
            + _entries_table(entry_settings()[name].values())
        )
    return "\n\n".join(sections)


def _settings_table(settings: Iterable[Setting]) -> str:
    rows = (
        (
            f"`{setting.name}`",
            f"`{toml_text(setting.plain(setting.default))}`",
            setting.allowed,
            "reload" if setting.reloadable else "restart",
            setting.description + (f" Flag: `{setting.flag}`." if setting.flag else ""),
        )
        for setting in settings
    )
    return _table(("Key", "Default", "Allowed", "Takes effect at", "Meaning"), rows)


def _entries_table(settings: Iterable[Setting]) -> str:
    rows = ((f"`{setting.name}`", setting.allowed, setting.description) for setting in settings)
    return _table(("Key", "Allowed", "Meaning"), rows)


def _exit_codes() -> str:
    rows = ((f"`{code.value}`", code.name, meaning) for code, meaning in MEANINGS.items())
    return _table(("Code", "Name", "Meaning"), rows)


# The page of TLS.


_VERSIONS = {TLSVersion.MINIMUM_SUPPORTED: "1.0", TLSVersion.TLSv1_2: "1.2", TLSVersion.TLSv1_3: "1.3"}


def _tls_profiles() -> str:
    def versions(rules: ProfileRules) -> str:
        lowest, highest = _VERSIONS[rules.lowest], _VERSIONS[rules.highest]
        return lowest if lowest == highest else f"{lowest} to {highest}"

    rows = (
        (
            f"`{profile}`",
            rules.title + (" (retired)" if rules.is_retired else ""),
            versions(rules),
            ", ".join(f"`{name}`" for name in rules.suites)
            + "".join(f", `{name}` if OpenSSL has it" for name in rules.optional_suites),
            rules.extra_suites,
        )
        for profile, rules in PROFILES.items()
    )
    return _table(("Name", "Profile of PS3.15", "TLS", "Cipher suites up to TLS 1.2", "May be added"), rows)


# The page of forwarding.


_LEVELS = {
    "patients": "of the patient",
    "studies": "of the study",
    "series": "of the series",
    "instances": "of the instance",
    "versions": "of the instance",
}


def _condition_keywords() -> str:
    found: dict[str, list[str]] = {level: [] for level in _LEVELS.values()}
    for keyword in KEYWORDS:
        found[_LEVELS[COLUMNS[keyword].table.name]].append(f"`{keyword}`")
    return _table(("Attributes", "Keywords"), [(level, ", ".join(names)) for level, names in found.items()])


# The page of the drop-in commands.


_DIFFERENCES = FOLDER / "dcmtk-differences.toml"


@cache
def differences() -> dict[str, Any]:
    """Return what the drop-in commands do otherwise than DCMTK, as it stands in its file."""
    return tomllib.loads(_DIFFERENCES.read_text(encoding="utf-8"))


def _differences() -> str:
    parts = []
    for group in differences()["groups"]:
        rows = (
            (f'<a id="{row["name"]}"></a>`{row["name"]}`', row["dcmtk"], row["ours"], row["why"])
            for row in group["rows"]
        )
        parts.append(f"### {group['title']}\n\n" + _table(("Name", "DCMTK", "Stowkeeper", "Why"), rows))
    return "\n\n".join(parts)


def _options(table: OptionTable) -> str:
    rows = [row for group in differences()["groups"] for row in group["rows"]]

    def state_of(option: Option) -> str:
        keys = (f"{table.tool}:{option.long}", option.long)
        names = [row["name"] for row in rows if any(key in row["options"] for key in keys)]
        links = ", ".join(f'<a href="#{name}">{name}</a>' for name in names)
        special = [differences()["states"][key] for key in keys if key in differences()["states"]]
        state = special[0] if special else "as DCMTK"
        return f"{state}, but: {links}" if links else state

    return options_page(table, state_of).rstrip()


def _dcmtk_storage_classes() -> str:
    rows = (
        (name, f"`{uid}`", f"`{prefix}`", "yes" if uid in DEFAULT_STORAGE_CLASSES else "with a profile")
        for uid, prefix, name in (row.split() for row in STORAGE_CLASSES.splitlines())
    )
    return _table(("SOP Class, by DCMTK's name", "UID", "Prefix", "Accepted by `storescp`"), rows)


def _dcmtk_preferences() -> str:
    long_names = {option.short: option.long for option in storescp_table().options()}
    rows = (
        (f"`{preference.value}`, `{long_names[preference.value]}`", ", ".join(_named_syntaxes(preference)))
        for preference in Preference
    )
    return _table(("Option", "Accepts, of several the first that is proposed"), rows)


def _named_syntaxes(preference: Preference) -> Iterator[str]:
    if preference is Preference.ACCEPT_ALL:
        yield "all of the next table"
    elif preference in SINGLE_SYNTAXES:
        yield f"{TRANSFER_SYNTAXES[SINGLE_SYNTAXES[preference]].name}"
        yield f"then as `{Preference.LITTLE_ENDIAN.value}`"
    else:
        yield from (TRANSFER_SYNTAXES[uid].name for uid in _accepted(preference))


def _dcmtk_accept_all() -> str:
    syntaxes = [TRANSFER_SYNTAXES[uid] for uid in _accepted(Preference.ACCEPT_ALL)]
    rows = (
        (str(place), known.name, f"`{known.uid}`", f"`{NAMES_BY_UID[known.uid]}`")
        for place, known in enumerate(syntaxes, 1)
    )
    return _table(("Place", "Transfer Syntax", "UID", "Name in profiles"), rows)


def _accepted(preference: Preference) -> tuple[str, ...]:
    return accepted_transfer_syntaxes(preference, byte_order="little")


# All parts, and the pages they stand on.


PARTS: Mapping[str, Callable[[], str]] = {
    "identification": _identification,
    "sop-classes": _storage_classes,
    "other-sop-classes": _other_classes,
    "transfer-syntaxes": _shipped_syntaxes,
    "other-transfer-syntaxes": _other_syntaxes,
    "settings": _settings,
    "exit-codes": _exit_codes,
    "tls-profiles": _tls_profiles,
    "condition-keywords": _condition_keywords,
    "storescp-options": lambda: _options(storescp_table()),
    "dcmrecv-options": lambda: _options(dcmrecv_table()),
    "dcmtk-storage-classes": _dcmtk_storage_classes,
    "dcmtk-preferences": _dcmtk_preferences,
    "dcmtk-accept-all": _dcmtk_accept_all,
    "dcmtk-differences": _differences,
}
"""What makes each part, by the name in its marker."""


def rewrite(page: str) -> str:
    """Return a page with every generated part as the code has it now.

    Raises MarkerError for a part without an end or of an unknown name.
    """
    pieces, position = [], 0
    while marker := _OPENING.search(page, position):
        if marker[1] not in PARTS:
            msg = f"there is no part {marker[1]!r}: use one of {', '.join(sorted(PARTS))}"
            raise MarkerError(msg)
        end = page.find(_CLOSING, marker.end())
        following = _OPENING.search(page, marker.end())
        if end < 0 or (following is not None and following.start() < end):
            msg = f"the part {marker[1]!r} has no {_CLOSING} after it"
            raise MarkerError(msg)
        pieces += [page[position : marker.end()], "\n\n", PARTS[marker[1]](), "\n\n"]
        position = end
    return "".join([*pieces, page[position:]])


def generated_pages() -> list[Path]:
    """Return the pages below the folder of documents that hold a generated part."""
    return sorted(page for page in FOLDER.rglob("*.md") if _OPENING.search(page.read_text(encoding="utf-8")))


def main(arguments: Sequence[str]) -> int:
    """Rewrite every page, or with `--check` name those that would change; return the exit code."""
    stale = 0
    for page in generated_pages():
        before = page.read_text(encoding="utf-8")
        after = rewrite(before)
        if before == after:
            continue
        stale += 1
        if "--check" in arguments:
            print(f"{page.name} is out of date: run {COMMAND}")
        else:
            page.write_text(after, encoding="utf-8")
            print(f"{page.name} rewritten")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
