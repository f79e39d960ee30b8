"""`storescp`: what becomes of associations and objects, in DCMTK's order.

Of an object: its bytes come, its file is made under a hidden name, its place is found, it is compared with what the
command said, the file gets its name, the answer goes out, the command of -xcr runs; and when another study ended by it, its
files are renamed and the command of -xcs runs.
"""

import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from stowkeeper.dcmtk.encoding.errors import EncodingError, NotWritableError
from stowkeeper.dcmtk.encoding.identity import Identity
from stowkeeper.dcmtk.event_commands import EventCommand, EventPeer, object_command, study_command
from stowkeeper.dcmtk.event_runner import EventRunner
from stowkeeper.dcmtk.file_names import NoFreeNameError, StorescpNames
from stowkeeper.dcmtk.host_names import PeerHost
from stowkeeper.dcmtk.incoming_file import synchronize_directory
from stowkeeper.dcmtk.modality_prefixes import UNKNOWN_CLASS_IN_LOG, modality_prefix
from stowkeeper.dcmtk.negotiation import StorescpRules, negotiate_storescp, role_remarks
from stowkeeper.dcmtk.oflog.loggers import Loggers
from stowkeeper.dcmtk.progress_line import ProgressLine
from stowkeeper.dcmtk.receiver import SUCCESS, Receiver, StoreInProgress
from stowkeeper.dcmtk.reception import (
    PATIENT_NAME,
    SPECIFIC_CHARACTER_SET,
    STUDY_INSTANCE_UID,
    Keeping,
    Reception,
    is_taken,
)
from stowkeeper.dcmtk.storescp_options import SortMode, StorescpOptions
from stowkeeper.dcmtk.study_folders import (
    EndedStudy,
    Placement,
    StoredFile,
    StudyFolderError,
    StudySorter,
    renamings,
)
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import generate_uid
from stowkeeper.dimse.errors import PeerError
from stowkeeper.dimse.message_types import CEchoRequest, CStoreRequest
from stowkeeper.net.handlers import AssociationFacts, StoreAnswer
from stowkeeper.upperlayer.negotiation import Accepted, AcceptedContext, Rejected
from stowkeeper.upperlayer.pdu import AssociateRQ

PROGRAM: Final = "storescp"
LOGGER: Final = "dcmtk.apps.storescp"
PROGRESS_LOGGER: Final = "dcmtk.apps.storescp.progress"


class _Refusal(Exception):
    """An object that gets no Success; `leaves_file` when DCMTK would have kept it even so."""

    def __init__(self, status: Status, words: str, *, leaves_file: bool = False) -> None:
        super().__init__(words)
        self.status = status
        self.words = words
        self.leaves_file = leaves_file


class StorescpReceiver(Receiver):
    """The handlers of `storescp`. With `keeps_refused` objects whose identity does not fit stay, as with DCMTK."""

    def __init__(
        self,
        options: StorescpOptions,
        rules: StorescpRules,
        keeping: Keeping | None,
        loggers: Loggers,
        *,
        keeps_refused: bool,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(keeping, loggers.get(LOGGER))
        self._options = options
        self._rules = rules
        self._keeps_refused = keeps_refused
        self._sleep = sleep
        self._progress = ProgressLine(loggers.get(PROGRESS_LOGGER))
        output, events = options.output, options.events
        directory = output.directory.rstrip(os.sep) or output.directory
        self._directory = directory
        self._names = StorescpNames(output.file_names, output.extension, new_uid=generate_uid)
        self._sorter: StudySorter | None = None
        if output.sort is not SortMode.NONE and not options.trial.ignore:
            self._sorter = StudySorter(
                output.sort,
                output.sort_prefix,
                timeout=events.study_timeout,
                keeps_names=events.rename_on_study_end,
            )
        self._runner = EventRunner(waits=events.synchronous)
        self._peer = EventPeer(calling_ae_title="", called_ae_title="", host="")
        self._host = PeerHost("", looks_up=False)
        self._is_receiving = False
        self._ended: EndedStudy | None = None
        self._place = ("", "")
        self._stays = False

    # Associations

    def negotiate(self, request: AssociateRQ, facts: AssociationFacts) -> Accepted | Rejected:
        """Decide by the options, or the profile."""
        self.log.info("Association Received")
        self._host = PeerHost(facts.peer_address, looks_up=self._options.network.host_lookup)
        decision = negotiate_storescp(request, self._rules)
        for remark in role_remarks(request, self._rules.profile):
            (self.log.error if remark.refused else self.log.warning)(
                f"{remark.sop_class_uid}: {remark.words}"
            )
        return decision

    def association_opened(self, facts: AssociationFacts) -> None:
        """Log the answer."""
        if facts.rejection is not None:
            self.log.error(f"Refusing Association ({facts.words})")
            return
        self._peer = EventPeer(
            calling_ae_title=facts.calling_ae_title, called_ae_title=facts.called_ae_title, host=""
        )
        request = facts.request
        peer_maximum = request.user_information.maximum_length if request is not None else 0
        self.log.info(f"Association Acknowledged (Max Send PDV: {max((peer_maximum or 131_072) - 12, 0)})")

    def association_ended(self, facts: AssociationFacts) -> None:
        """Log how it ended."""
        if facts.end == "released":
            self.log.info("Association Release")
        elif facts.end == "rejected":
            return
        elif facts.request is None:
            self.log.error(f"Receiving Association failed: {facts.words}")
        else:
            self.log.info(f"Association Aborted: {facts.words}")

    # Messages

    def echo(self, request: CEchoRequest, context: AcceptedContext) -> None:
        """Log a C-ECHO."""
        self.log.info(f"Received Echo Request (MsgID {request.message_id})")

    def store_begins(self, request: CStoreRequest, context: AcceptedContext) -> None:
        """Log a C-STORE request, and wait if that is asked for."""
        prefix = modality_prefix(request.affected_sop_class_uid or "", UNKNOWN_CLASS_IN_LOG)
        self.log.info(f"Received Store Request (MsgID {request.message_id}, {prefix})")
        self._is_receiving = True
        self._progress.begin()
        self._sleep_during()

    def progress(self, store: StoreInProgress) -> None:
        """Show that a piece came; wait, or abort, if that is asked for."""
        self._progress.advance()
        self._sleep_during()
        if self._options.trial.abort_during:
            raise PeerError("the association is aborted in the middle of a data set (--abort-during)")

    def _sleep_during(self) -> None:
        if self._options.trial.sleep_during:
            self._sleep(self._options.trial.sleep_during)

    def given_up(self, store: StoreInProgress) -> None:
        """Receive no more. What another study's end asks for is done all the same."""
        self._progress.end()
        self._is_receiving = False
        self._end_study()

    # Objects

    def keep(self, store: StoreInProgress) -> StoreAnswer:
        """Store an object, or say by its status why not."""
        self._progress.end()
        self._sleep_during()
        self._place = ("", "")
        self._stays = False
        if self._options.trial.abort_after:
            raise PeerError("the association is aborted behind a data set (--abort-after)")
        reception = store.reception
        if reception is None:
            self._stays = True
            return SUCCESS
        try:
            if store.failure is not None:
                raise _Refusal(Status.OUT_OF_RESOURCES, f"cannot write DICOM file: {_words(store.failure)}")
            if self._options.output.bit_preserving:
                self._store_bytes(store, reception)
            else:
                self._store_object(store, reception)
        except _Refusal as refusal:
            self._stays = self._stays and refusal.leaves_file and self._keeps_refused
            self.log.error(refusal.words)
            return StoreAnswer(status=refusal.status)
        return SUCCESS

    def _store_bytes(self, store: StoreInProgress, reception: Reception) -> None:
        request = store.request
        try:
            reception.complete(reception.identity())
        except OSError as error:
            raise _Refusal(Status.OUT_OF_RESOURCES, f"cannot write DICOM file: {_words(error)}") from None
        self._name_and_place(request, reception, None)
        self._stays = True

    def _store_object(self, store: StoreInProgress, reception: Reception) -> None:
        failure: _Refusal | None = None
        identity = Identity(sop_class_uid=None, sop_instance_uid=None)
        reception.finish()
        try:
            identity = reception.identity()
            reception.complete(identity)
        except NotWritableError as error:
            failure = _Refusal(Status.OUT_OF_RESOURCES, f"cannot write DICOM file: {error}")
        except EncodingError as error:
            raise PeerError(f"the data set cannot be read: {error}") from None
        except OSError as error:
            failure = _Refusal(Status.OUT_OF_RESOURCES, f"cannot write DICOM file: {_words(error)}")
        placement = self._placement(reception)
        if failure is not None:
            raise failure
        mismatch = _mismatch(store.request, identity)
        if mismatch is not None and not self._keeps_refused:
            raise mismatch
        prefix = self._name_and_place(store.request, reception, placement)
        self._stays = True
        if placement is not None and self._sorter is not None:
            file = StoredFile(name=self._place[1], prefix=prefix)
            self._ended = self._sorter.stored(placement, file, at=time.monotonic())
        if mismatch is not None:
            raise mismatch

    def _placement(self, reception: Reception) -> Placement | None:
        """Find the subdirectory of an object, and make it."""
        if self._sorter is None:
            return None
        try:
            placement = self._sorter.place(
                _text(reception.value(STUDY_INSTANCE_UID)),
                reception.value(PATIENT_NAME),
                _text(reception.value(SPECIFIC_CHARACTER_SET)),
                now=datetime.now().astimezone(),
            )
        except StudyFolderError as error:
            raise _Refusal(Status.CANNOT_UNDERSTAND, str(error)) from None
        for warning in placement.warnings:
            self.log.warning(warning)
        if placement.is_new_study:
            self._make_subdirectory(placement.folder)
        return placement

    def _make_subdirectory(self, folder: str) -> None:
        path = os.path.join(self._directory, folder)
        try:
            os.mkdir(path)
            if self.keeping is not None and self.keeping.synchronizes:
                synchronize_directory(self._directory)
        except FileExistsError:
            self.log.info(f"using existing subdirectory for study: {path}")
        except OSError as error:
            words = f"cannot create subdirectory for study: {path}: {_words(error)}"
            raise _Refusal(Status.CANNOT_UNDERSTAND, words) from None
        else:
            self.log.info(f"created new subdirectory for study: {path}")

    def _name_and_place(
        self, request: CStoreRequest, reception: Reception, placement: Placement | None
    ) -> str:
        """Give the completed file its name; return the prefix of its class."""
        folder = "" if placement is None else placement.folder
        directory = os.path.join(self._directory, folder) if folder else self._directory
        try:
            name = self._names.name(
                request.affected_sop_class_uid or "",
                request.affected_sop_instance_uid or "",
                folder=folder,
                now=datetime.now().astimezone(),
                taken=lambda candidate: is_taken(directory, candidate),
            )
        except NoFreeNameError as error:
            raise _Refusal(Status.OUT_OF_RESOURCES, f"cannot write DICOM file: {error}") from None
        if name.warning is not None:
            self.log.warning(name.warning)
        path = os.path.join(directory, name.text)
        if not self._options.output.bit_preserving:
            self.log.info(f"storing DICOM file: {path}")
            if is_taken(directory, name.text):
                self.log.warning(f"DICOM file already exists, overwriting: {path}")
        try:
            reception.place(path)
        except OSError as error:
            words = f"cannot write DICOM file: {path}: {_words(error)}"
            raise _Refusal(Status.OUT_OF_RESOURCES, words) from None
        self._place = (directory, name.text)
        return name.prefix

    # Events

    def answered(self, store: StoreInProgress, answer: StoreAnswer) -> None:
        """Run the commands that follow an answer, then wait if that is asked for."""
        template = self._options.events.on_reception
        if template is not None and self._stays:
            directory, name = self._place
            is_stored = store.reception is not None
            self._run(
                object_command(
                    template,
                    self._event_peer(template),
                    directory=directory if is_stored else None,
                    file_name=name if is_stored else None,
                )
            )
        self._end_study()
        if self._options.trial.sleep_after:
            self._sleep(self._options.trial.sleep_after)
        self._is_receiving = False

    def meanwhile(self) -> None:
        """End the current study when its time is over; called while nothing comes."""
        self._runner.collect()
        if self._sorter is not None and not self._is_receiving:
            self._ended = self._sorter.expired(time.monotonic())
            self._end_study()

    def _end_study(self) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        directory = os.path.join(self._directory, ended.folder)
        if self._options.events.rename_on_study_end:
            self._rename(directory, ended)
        template = self._options.events.on_study_end
        if template is not None:
            self._run(study_command(template, self._event_peer(template), directory=directory))

    def _rename(self, directory: str, ended: EndedStudy) -> None:
        try:
            present = os.listdir(directory)
        except OSError as error:
            self.log.warning(f"cannot rename the files of a study: {directory}: {_words(error)}")
            return
        for renaming in renamings(ended.files, present):
            try:
                os.rename(os.path.join(directory, renaming.old), os.path.join(directory, renaming.new))
            except OSError as error:
                self.log.warning(
                    f"cannot rename {renaming.old} to {renaming.new} in {directory}: {_words(error)}"
                )

    def _event_peer(self, template: str) -> EventPeer:
        """Return who the values of a command are about. The name is looked up when the command asks for it."""
        if "#r" not in template:
            return self._peer
        return EventPeer(
            calling_ae_title=self._peer.calling_ae_title,
            called_ae_title=self._peer.called_ae_title,
            host=self._host.short_name,
        )

    def _run(self, command: EventCommand) -> None:
        for warning in command.warnings:
            self.log.warning(warning)
        try:
            self._runner.run(command.text)
        except OSError as error:
            self.log.error(f"cannot execute command: {_words(error)}")


def _mismatch(request: CStoreRequest, identity: Identity) -> _Refusal | None:
    """Compare what a data set says it is with what the command said (PS3.4 §B.2.3, statuses C000H and A900H)."""
    if not identity.sop_class_uid or not identity.sop_instance_uid:
        words = "bad DICOM file: SOP Class UID or SOP Instance UID is missing"
        return _Refusal(Status.CANNOT_UNDERSTAND, words, leaves_file=True)
    if identity.sop_class_uid != request.affected_sop_class_uid:
        words = "bad DICOM file: SOP Class UID is not that of the request"
    elif identity.sop_instance_uid != request.affected_sop_instance_uid:
        words = "bad DICOM file: SOP Instance UID is not that of the request"
    else:
        return None
    return _Refusal(Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, words, leaves_file=True)


def _text(value: bytes) -> str:
    return value.decode("latin-1").rstrip("\0 ")


def _words(error: OSError) -> str:
    return error.strerror or str(error)
