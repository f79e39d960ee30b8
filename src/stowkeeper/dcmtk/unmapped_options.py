"""Options of the commands that a settings file of `serve` has no key for: why, and what to do instead."""

from collections.abc import Iterator
from typing import Final

from stowkeeper.dcmtk.dcmrecv_options import DcmrecvOptions, StorageMode, Subdirectories
from stowkeeper.dcmtk.dcmrecv_options import FileNames as DcmrecvFileNames
from stowkeeper.dcmtk.storescp_options import (
    EventOptions,
    FileNames,
    GroupLengths,
    OutputOptions,
    ProcessModel,
    SequenceLengths,
    SortMode,
    StorescpOptions,
    TrialOptions,
    WriteTransferSyntax,
)
from stowkeeper.dcmtk.storescp_output_table import COMPRESSION_LEVEL_DEFAULT

_KEPT_AS_RECEIVED: Final = "serve keeps every data set byte for byte as it came, in a Part 10 file"
_OWN_NAMES: Final = (
    "serve names its files itself and finds them by its catalog: see `stowkeeper ls instances`"
)
_NO_EVENTS: Final = (
    "not in this version: serve starts no programs; ask `stowkeeper ls instances --json` for what came"
)
_NO_TRIALS: Final = "serve has nothing to try out senders with; stay with storescp for that"

Remarks = Iterator[tuple[str, str]]
"""Options in the form of the command line, each with why there is no equivalent and what to do."""


def storescp_remarks(options: StorescpOptions) -> Remarks:
    """Yield a remark for each option of `storescp` that was given and has no setting."""
    yield from _process_remarks(options)
    yield from _trial_remarks(options.trial)
    yield from _output_remarks(options.output)
    yield from _event_remarks(options.events)


def _process_remarks(options: StorescpOptions) -> Remarks:
    if options.process_model is ProcessModel.FORK:
        yield "--fork", "nothing to set: serve has many associations at once in one process"
    if options.access_control:
        yield (
            "--access-control",
            "serve reads no host tables: write who may call into access.addresses, networks included",
        )
    if options.uid_padding:
        yield "--uid-padding", "nothing to set: serve always takes UIDs padded with blanks"


def _trial_remarks(trial: TrialOptions) -> Remarks:
    given = {
        "--refuse": trial.refuse,
        "--reject": trial.reject_without_implementation_class,
        "--ignore": trial.ignore,
        "--sleep-after": trial.sleep_after,
        "--sleep-during": trial.sleep_during,
        "--abort-after": trial.abort_after,
        "--abort-during": trial.abort_during,
    }
    yield from ((option, _NO_TRIALS) for option, value in given.items() if value)


def _output_remarks(output: OutputOptions) -> Remarks:
    if output.bit_preserving:
        yield "--bit-preserving", f"nothing to set: {_KEPT_AS_RECEIVED}"
    if output.transfer_syntax is not WriteTransferSyntax.SAME:
        words = (
            f"{_KEPT_AS_RECEIVED}; to get one syntax alone, accept no other in negotiation.transfer_syntaxes"
        )
        yield output.transfer_syntax.value, words
    given = {
        "--write-dataset": not output.with_file_meta,
        "--disable-new-vr": not output.new_vrs,
        output.group_lengths.value: output.group_lengths is not GroupLengths.RECALCULATE,
        output.sequence_lengths.value: output.sequence_lengths is not SequenceLengths.EXPLICIT,
        "--padding-create": output.padding is not None,
        "--convert-un": output.convert_un,
        "--compression-level": output.compression_level != COMPRESSION_LEVEL_DEFAULT,
    }
    yield from ((option, _KEPT_AS_RECEIVED) for option, value in given.items() if value)
    if output.sort is not SortMode.NONE:
        yield output.sort.value, "serve keeps a folder for each study by its UID, and no other order"
    if output.file_names is not FileNames.INSTANCE_UID:
        yield output.file_names.value, _OWN_NAMES
    if output.extension:
        yield "--filename-extension", _OWN_NAMES


def _event_remarks(events: EventOptions) -> Remarks:
    given = {
        "--exec-on-reception": events.on_reception is not None,
        "--exec-on-eostudy": events.on_study_end is not None,
        "--exec-sync": events.synchronous,
        "--eostudy-timeout": events.study_timeout is not None,
    }
    yield from ((option, _NO_EVENTS) for option, value in given.items() if value)
    if events.rename_on_study_end:
        yield "--rename-on-eostudy", _OWN_NAMES


def dcmrecv_remarks(options: DcmrecvOptions) -> Remarks:
    """Yield a remark for each option of `dcmrecv` that was given and has no setting."""
    if options.subdirectories is not Subdirectories.NONE:
        yield (
            options.subdirectories.value,
            "serve keeps a folder for each study by its UID, and no other order",
        )
    if options.file_names is not DcmrecvFileNames.INSTANCE_UID:
        yield options.file_names.value, _OWN_NAMES
    if options.extension:
        yield "--filename-extension", _OWN_NAMES
    if options.storage_mode is StorageMode.IGNORE:
        yield "--ignore", "serve keeps whatever it answers Success to; stay with dcmrecv for that"
    if options.storage_mode is StorageMode.BIT_PRESERVING:
        yield "--bit-preserving", f"nothing to set: {_KEPT_AS_RECEIVED}"
