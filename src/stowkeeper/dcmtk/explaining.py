"""What `--explain` prints: the settings of `stowkeeper serve` that come closest to a command line.

An option that is given and has no equivalent gets a remark: why, and what to do instead. What a command line leaves to its
default stays at the default of `serve`, save what decides who reaches it and which objects it takes.
"""

import os
from collections.abc import Sequence
from typing import Final

from stowkeeper.dcmtk.dcmrecv_options import DcmrecvOptions
from stowkeeper.dcmtk.log_options import LogLevel, LogOptions
from stowkeeper.dcmtk.negotiation import DEFAULT_STORAGE_CLASSES
from stowkeeper.dcmtk.network_options import (
    ACSE_TIMEOUT_DEFAULT,
    MAX_PDU_DEFAULT,
    NetworkOptions,
    ProfileChoice,
)
from stowkeeper.dcmtk.preferences import accepted_transfer_syntaxes
from stowkeeper.dcmtk.settings_text import SettingsText, is_utf_8
from stowkeeper.dcmtk.storescp_options import StorescpOptions
from stowkeeper.dcmtk.storescp_table import AE_TITLE_DEFAULT, SOCKET_TIMEOUT_DEFAULT
from stowkeeper.dcmtk.tls_options import TLSChoice
from stowkeeper.dcmtk.unmapped_options import Remarks, dcmrecv_remarks, storescp_remarks
from stowkeeper.dicom.ae_title import ae_title_defect
from stowkeeper.dicom.sop_classes import SOP_CLASSES, is_non_patient_storage
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.dicom.uid import STORAGE_COMMITMENT_PUSH_MODEL
from stowkeeper.net.tls_context import PeerVerification, RevocationCheck

SECONDS_MAX: Final = 86_400
"""The longest time limit that the settings take, a day."""
EVERY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - both programs listen on every IPv4 address
ARCHIVE_FOLDER: Final = "archive"
"""The folder below the output directory for an archive, which takes no folder that holds other things."""
AUTHORITIES_TO_NAME: Final = "name-the-authorities-of-the-peers.pem"

_LEVELS: Final = {
    LogLevel.TRACE: "debug",
    LogLevel.DEBUG: "debug",
    LogLevel.INFO: "info",
    LogLevel.WARN: "warning",
    LogLevel.ERROR: "error",
    LogLevel.FATAL: "error",
    LogLevel.OFF: "error",
}


def explain_storescp(options: StorescpOptions, *, listen_address: str = "") -> str:
    """Return the settings file for a command line of `storescp`; an empty `listen_address` is every IPv4 address."""
    text = _begin("storescp")
    _set_archive(text, options.output.directory)
    _set_listener(text, options.port, listen_address)
    _set_network(text, options.network, options.socket_timeout, bounds_idleness=False)
    if options.ae_title != AE_TITLE_DEFAULT:
        _set_ae_title(text, options.ae_title)
    _set_log(text, options.log)
    _set_tls(text, options.tls)
    if options.profile is not None:
        _set_profile(text, "storescp", options.profile)
    else:
        _set_classes_of_storescp(text, promiscuous=options.promiscuous)
        syntaxes = accepted_transfer_syntaxes(options.preference)
        keywords = [TRANSFER_SYNTAXES[uid].keyword for uid in syntaxes]
        text.set("negotiation", "transfer_syntaxes", keywords)
        text.set("negotiation", "choice", "preference")
        text.set("negotiation", "preference", keywords)
    return _with_remarks(text, storescp_remarks(options))


def explain_dcmrecv(options: DcmrecvOptions, *, listen_address: str = "") -> str:
    """Return the settings file for a command line of `dcmrecv`; an empty `listen_address` is every IPv4 address."""
    text = _begin("dcmrecv")
    _set_archive(text, options.directory)
    _set_listener(text, options.port, listen_address)
    _set_network(text, options.network, SOCKET_TIMEOUT_DEFAULT, bounds_idleness=True)
    if options.ae_title is not None and _set_ae_title(text, options.ae_title):
        text.set("access", "check_called_ae_title", value=True)
    _set_log(text, options.log)
    _set_tls(text, options.tls)
    if options.profile is not None:
        _set_profile(text, "dcmrecv", options.profile)
    else:
        text.comment("negotiation", "Without --config-file dcmrecv takes no storage, Verification alone.")
        text.set("negotiation", "abstract_syntaxes", [])
    return _with_remarks(text, dcmrecv_remarks(options))


def _begin(tool: str) -> SettingsText:
    return SettingsText(
        (
            f"Settings for `stowkeeper serve --config FILE` that come closest to this command line of {tool}.",
            "What it leaves to its default is left to the default of serve, save who reaches it and what it takes.",
            "`stowkeeper check-config --config FILE` shows all settings, docs/settings.md what they mean.",
        )
    )


def _with_remarks(text: SettingsText, remarks: Remarks) -> str:
    for option, words in remarks:
        text.remark(option, words)
    return str(text)


# --- settings


def _set_archive(text: SettingsText, directory: str) -> None:
    path = os.path.join(_absolute(text, "--output-directory", directory), ARCHIVE_FOLDER)
    text.set("", "archive", path, "a folder of its own: serve takes none that holds other things")


def _set_listener(text: SettingsText, port: int | None, listen_address: str) -> None:
    text.set("dicom", "host", listen_address or EVERY_ADDRESS)
    if port is None:
        words = "serve listens itself: set dicom.port, and run it as a service in place of the super server"
        text.remark("--inetd", words)
    else:
        text.set("dicom", "port", port)


def _set_network(
    text: SettingsText, network: NetworkOptions, socket_timeout: int | None, *, bounds_idleness: bool
) -> None:
    """Set sizes and times; `bounds_idleness` tells that the DIMSE timeout holds between messages, too."""
    if network.max_pdu != MAX_PDU_DEFAULT:
        text.set("dicom", "maximum_length", network.max_pdu)
    if network.acse_timeout != ACSE_TIMEOUT_DEFAULT:
        _set_seconds(text, "association_request_seconds", network.acse_timeout)
    if network.dimse_timeout is not None or socket_timeout != SOCKET_TIMEOUT_DEFAULT:
        _set_seconds(text, "message_seconds", _shorter(network.dimse_timeout, socket_timeout))
    if bounds_idleness and network.dimse_timeout is not None:
        _set_seconds(text, "idle_seconds", _shorter(network.dimse_timeout, socket_timeout))
    if socket_timeout != SOCKET_TIMEOUT_DEFAULT:
        _set_seconds(text, "send_seconds", socket_timeout)
        if socket_timeout is None:
            text.set("dicom", "idle_seconds", 0)
        else:
            _set_seconds(text, "idle_seconds", socket_timeout)
    if not network.host_lookup:
        text.remark("--disable-host-lookup", "nothing to set: serve never asks for the names of hosts")


def _shorter(one: int | None, other: int | None) -> int | None:
    return min((seconds for seconds in (one, other) if seconds is not None), default=None)


def _set_seconds(text: SettingsText, name: str, seconds: int | None) -> None:
    if seconds is None or seconds > SECONDS_MAX:
        text.set("dicom", name, SECONDS_MAX, "the longest there is")
    else:
        text.set("dicom", name, seconds)


def _set_ae_title(text: SettingsText, ae_title: str) -> bool:
    """Set an AE title if it is one; tell whether it is."""
    defect = ae_title_defect(ae_title.strip(" "))
    if defect is not None:
        text.remark("--aetitle", f"it is no valid AE title ({defect}): set another in dicom.ae_title")
        return False
    text.set("dicom", "ae_title", ae_title.strip(" "))
    return True


def _set_log(text: SettingsText, log: LogOptions) -> None:
    if log.config_file is not None:
        text.remark("--log-config", "serve takes no such files: set level, format and place in [log]")
    elif log.level is not LogLevel.WARN:
        text.set("log", "level", _LEVELS[log.level])
        if log.level > LogLevel.ERROR:
            text.comment("log", "serve always logs errors; console = false keeps them to the log file.")
    if log.arguments:
        text.remark("--arguments", "`stowkeeper check-config` shows what is in force and where it came from")
    if log.presentation_contexts:
        text.remark(
            "--verbose-pc",
            "not in the log: `stowkeeper ls associations --json` shows the presentation contexts of each",
        )


def _set_tls(text: SettingsText, tls: TLSChoice | None) -> None:
    if tls is None:
        return
    options = tls.options
    text.set("tls", "certificate", _absolute(text, "--enable-tls", options.certificate_file))
    text.set("tls", "key", _absolute(text, "--enable-tls", options.key_file))
    if tls.asks_password:
        text.comment("tls", "Nobody is asked for a password: if the key has one, key_password_file names it.")
    elif options.password:
        text.remark("--use-passwd", "put the password into a file, and name that in tls.key_password_file")
    text.set("tls", "format", str(options.file_format))
    text.set("tls", "peer_certificate", str(options.verification))
    ca_files = _absolute_paths(text, "--add-cert-file", options.ca_files)
    ca_directories = _absolute_paths(text, "--add-cert-dir", options.ca_directories)
    if not ca_files and not ca_directories and options.verification is not PeerVerification.IGNORE:
        text.comment("tls", "The command line names no authority, so nobody could verify: name them here.")
        ca_files = [AUTHORITIES_TO_NAME]
    if ca_files:
        text.set("tls", "ca_files", ca_files)
    if ca_directories:
        text.set("tls", "ca_directories", ca_directories)
    if options.crl_files:
        text.set("tls", "crl_files", _absolute_paths(text, "--add-crl-file", options.crl_files))
    if options.revocation_check is not RevocationCheck.NONE:
        text.set("tls", "crl_check", str(options.revocation_check))
    text.set("tls", "profile", str(options.profile))
    if options.cipher_suites:
        text.set("tls", "cipher_suites", options.cipher_suites)
    if options.dh_parameter_file:
        text.set("tls", "dh_parameters", _absolute(text, "--dhparam", options.dh_parameter_file))
    if options.expected_server_name:
        text.set("tls", "server_name", options.expected_server_name)
    if tls.seed_file is not None:
        text.remark("--seed", "nothing to set: the system gives enough random numbers")
    if tls.write_seed_file is not None:
        text.remark("--write-seed, --write-seed-file", "serve writes no seeds: nothing reads them")


def _set_profile(text: SettingsText, tool: str, profile: ProfileChoice) -> None:
    text.set("negotiation", "profile", tool)
    text.set("[profiles]", "name", tool)
    text.set("[profiles]", "file", _absolute(text, "--config-file", profile.file))
    text.set("[profiles]", "file_profile", profile.name)


def _set_classes_of_storescp(text: SettingsText, *, promiscuous: bool) -> None:
    if promiscuous:
        text.set("negotiation", "abstract_syntaxes", "all")
        refused = [
            known.keyword
            for uid, known in SOP_CLASSES.items()
            if is_non_patient_storage(uid) or uid == STORAGE_COMMITMENT_PUSH_MODEL
        ]
        text.set("negotiation", "refused_abstract_syntaxes", refused)
        words = (
            "private classes that are known to be no storage stay refused: nothing is stored of them anyway"
        )
        text.remark("--promiscuous", words)
    else:
        classes = [known.keyword for uid, known in SOP_CLASSES.items() if uid in DEFAULT_STORAGE_CLASSES]
        text.set("negotiation", "abstract_syntaxes", classes)


def _absolute_paths(text: SettingsText, option: str, paths: Sequence[str]) -> list[str]:
    return [_absolute(text, option, path) for path in paths]


def _absolute(text: SettingsText, option: str, path: str) -> str:
    """Return a path from the root on: in a settings file it would count from the folder of that file."""
    absolute = os.path.abspath(path)
    if not is_utf_8(absolute):
        text.remark(option, "its path has bytes that are no UTF-8: rename it, and mend it below")
    return absolute
