"""`storescp`: what becomes of associations and objects, in DCMTK's order.

Of an object: its bytes come, its file is made whole under a hidden name, its place is found, what it says of itself is
compared with what the command said, the file gets its name, the answer goes out, the command of -xcr runs; and when a study
ended by it, that study's files are renamed and the command of -xcs runs.
"""

import os
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Final

from stowkeeper.dcmtk.encoding.errors import EncodingError, NotWritableError
from stowkeeper.dcmtk.encoding.identity import Identity, clean_uid
from stowkeeper.dcmtk.event_commands import EventCommand, EventPeer, object_command, study_command
from stowkeeper.dcmtk.event_runner import EventRunner
from stowkeeper.dcmtk.file_names import FileName, NoFreeNameError, StorescpNames
from stowkeeper.dcmtk.host_names import PeerHost
from stowkeeper.dcmtk.incoming_file import rename_to_free_name, synchronize_directory
from stowkeeper.dcmtk.limits import FILE_NAME_TRIES_MAX
from stowkeeper.dcmtk.log_lines import Condition, Lines
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
from stowkeeper.dcmtk.storescp_lines import StorescpLines
from stowkeeper.dcmtk.storescp_options import FileNames, SortMode, StorescpOptions
from stowkeeper.dcmtk.study_folders import (
    EndedStudy,
    Placement,
    StoredFile,
    StudyFolderError,
    StudySorter,
    next_number,
    renamings,
)
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import generate_uid
from stowkeeper.dimse.message_types import CStoreRequest
from stowkeeper.net.handlers import AssociationFacts, StoreAnswer
from stowkeeper.upperlayer.negotiation import Accepted, AcceptedContext, Rejected
from stowkeeper.upperlayer.pdu import AssociateRJ, AssociateRQ

PROGRAM: Final = "storescp"
PROGRESS_LOGGER: Final = "dcmtk.apps.storescp.progress"


class _RefusedError(Exception):
    """An object that gets no Success. `lines` say why; DCMTK `keeps_file` of some all the same."""

    def __init__(self, status: Status, lines: Lines, *, keeps_file: bool = False) -> None:
        super().__init__(status)
        self.status = status
        self.lines = lines
        self.keeps_file = keeps_file


class StorescpReceiver(Receiver[StorescpLines]):
    """The handlers of `storescp`.

    With `keeps_refused`, objects that are not what the command says stay and start -xcr, as with DCMTK. `child_of_fork`
    says that a process serves one association.
    """

    def __init__(
        self,
        options: StorescpOptions,
        rules: StorescpRules,
        keeping: Keeping | None,
        loggers: Loggers,
        lines: StorescpLines,
        *,
        keeps_refused: bool,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(keeping, loggers, lines)
        self._options = options
        self._rules = rules
        self._keeps_refused = keeps_refused
        self._sleep = sleep
        self._progress = ProgressLine(loggers.get(PROGRESS_LOGGER))
        self._directory = options.output.directory.rstrip(os.sep) or options.output.directory
        self._names = StorescpNames(options.output.file_names, options.output.extension, new_uid=generate_uid)
        self._sorter = _sorter(options)
        self._runner = EventRunner(waits=options.events.synchronous)
        self._peer = EventPeer(calling_ae_title="", called_ae_title="", host="")
        self._host = PeerHost("", looks_up=False)
        self._is_receiving = False
        self._ended: EndedStudy | None = None
        self._stored: tuple[str, str] | None = None
        """Directory and name of the file of the object that is to be answered."""
        self.child_pid: int | None = None
        """The number of this process, where it serves one association of --fork."""

    # Associations

    def negotiate(self, request: AssociateRQ, facts: AssociationFacts) -> Accepted | Rejected:
        """Decide by the options, or the profile."""
        maximum_length = self._rules.maximum_length
        self.say(self._lines.association_received(request, maximum_length, child_pid=self.child_pid))
        decision = negotiate_storescp(request, self._rules)
        for remark in role_remarks(request, self._rules.profile):
            text = f"{remark.sop_class_uid}: {remark.words}"
            self.say(self._lines.error(text) if remark.refused else self._lines.warning(text))
        if isinstance(decision, Accepted):
            self._host = PeerHost(facts.peer_address, looks_up=self._options.network.host_lookup)
            self._peer = EventPeer(
                calling_ae_title=request.calling_ae_title, called_ae_title=request.called_ae_title, host=""
            )
            self.say(self._lines.acknowledged(request, decision.response))
        return decision

    def rejected(self, request: AssociateRQ | None, rejection: AssociateRJ, words: str) -> None:
        """Log a rejection."""
        self.say(self._lines.refused(request, rejection, words, by_option=self._rules.refuse))

    def association_ended(self, facts: AssociationFacts) -> None:
        """Receive no more, also where a C-STORE request was refused before there was anything to give up."""
        self._progress.end()
        self._is_receiving = False
        super().association_ended(facts)

    def probed(self, address: str) -> None:  # noqa: ARG002 - this program names no peers
        """Log a connection that was merely looked at."""
        self.say(self._lines.probed())

    # Messages

    def store_begins(self, request: CStoreRequest, context: AcceptedContext) -> None:
        """Log a C-STORE request, and wait if that is asked for."""
        if self.is_verbose:
            self.say(self._lines.store_request(request, context.context_id))
        self._is_receiving = True
        self._stored = None
        self._progress.begin()
        self._sleep_during()

    def progress(self, store: StoreInProgress) -> None:  # noqa: ARG002 - of every object alike
        """Show that a PDV came; wait, or abort, if that is asked for."""
        self._progress.advance()
        self._sleep_during()
        if self._options.trial.abort_during:
            self._abort_by_option()

    def identity_of(self, request: CStoreRequest) -> Identity:
        """Return what a command says that its data set is, its UIDs put right as those of the data set are."""
        return Identity(
            sop_class_uid=_clean_class(request.affected_sop_class_uid),
            sop_instance_uid=_without_white_space(request.affected_sop_instance_uid),
        )

    def _sleep_during(self) -> None:
        if self._options.trial.sleep_during:
            self._sleep(self._options.trial.sleep_during)

    def _abort_by_option(self) -> None:
        self.say(self._lines.aborting_by_option())
        raise self.end_of_association(Condition.SEND_FAILED, "it was aborted due to command line options")

    def given_up(self, store: StoreInProgress, words: str) -> None:
        """Receive no more. A study that ended by an object whose answer failed has ended all the same."""
        self._progress.end()
        self.say(self._lines.store_failed(self.cause_of_end(store.facts), words))
        self._is_receiving = False
        self._end_study()

    # Objects

    def keep(self, store: StoreInProgress) -> StoreAnswer:
        """Store an object, or say by its status why not."""
        self._progress.end()
        self._sleep_during()
        if self._options.trial.abort_after:
            self._abort_by_option()
        if store.reception is None:
            return SUCCESS
        try:
            if self._options.output.bit_preserving:
                self._store_bytes(store, store.reception)
            else:
                self._store_object(store, store.reception)
        except _RefusedError as refused:
            self.say(refused.lines)
            if not (refused.keeps_file and self._keeps_refused):
                self._stored = None
            return StoreAnswer(status=refused.status)
        return SUCCESS

    def _store_bytes(self, store: StoreInProgress, reception: Reception) -> None:
        name = self._name(store.request, "")
        try:
            if store.failure is not None:
                raise store.failure
            reception.complete(reception.identity())
        except OSError as error:
            lines = self._lines.cannot_create(self._path(self._directory, name), _words(error))
            raise _RefusedError(Status.OUT_OF_RESOURCES, lines) from None
        self._place(store.request, reception, "", name)

    def _store_object(self, store: StoreInProgress, reception: Reception) -> None:
        if store.failure is not None:  # what it says of its study did not come to be read
            path = self._path(self._directory, self._name(store.request, ""))
            lines = self._lines.cannot_write(path, _words(store.failure))
            raise _RefusedError(Status.OUT_OF_RESOURCES, lines)
        failure = ""
        identity = Identity(sop_class_uid=None, sop_instance_uid=None)
        try:
            reception.finish()
            identity = reception.identity()
            reception.complete(identity)
        except NotWritableError as error:
            failure = str(error)
        except EncodingError as error:
            words = f"the data set cannot be read: {error}"
            raise self.end_of_association(Condition.RECEIVE_FAILED, words) from None
        except OSError as error:
            failure = _words(error)
        placement = self._placement(reception)
        folder = "" if placement is None else placement.folder
        name = self._name(store.request, folder)
        path = self._path(os.path.join(self._directory, folder), name)
        if failure:
            raise _RefusedError(Status.OUT_OF_RESOURCES, self._lines.cannot_write(path, failure))
        mismatch = self._mismatch(reception.claimed, identity, path)
        if mismatch is not None and not self._keeps_refused:
            raise mismatch
        if placement is not None and (placement.is_new_study or not is_taken(self._directory, folder)):
            self._make_subdirectory(folder)
        stored = self._place(store.request, reception, folder, name)
        if placement is not None and self._sorter is not None:
            file = StoredFile(name=stored.text, prefix=stored.prefix)
            self._ended = self._sorter.stored(placement, file, at=time.monotonic())
        if mismatch is not None:
            raise mismatch

    def _mismatch(self, claimed: Identity, identity: Identity, path: str) -> _RefusedError | None:
        """Compare what a data set says it is with what the command said (PS3.4 §B.2.3, A900H and C000H)."""
        status = Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS
        if not identity.sop_class_uid or identity.sop_instance_uid is None:
            status = Status.CANNOT_UNDERSTAND
            words = "SOP Class UID or SOP Instance UID is absent"
        elif identity.sop_class_uid != claimed.sop_class_uid:
            words = "SOP Class UID is not that of the request"
        elif identity.sop_instance_uid != claimed.sop_instance_uid:
            words = "SOP Instance UID is not that of the request"
        else:
            return None
        return _RefusedError(status, self._lines.bad_file(path, words), keeps_file=True)

    # Places

    def _placement(self, reception: Reception) -> Placement | None:
        """Find the subdirectory of an object."""
        if self._sorter is None:
            return None
        try:
            placement = self._sorter.place(
                _text(reception.value(STUDY_INSTANCE_UID)),
                reception.value(PATIENT_NAME),
                _text(reception.value(SPECIFIC_CHARACTER_SET)),
                now=_now(),
            )
        except StudyFolderError as error:
            raise _RefusedError(Status.CANNOT_UNDERSTAND, self._lines.error(str(error))) from None
        for warning in placement.warnings:
            self.say(self._lines.warning(warning))
        return placement

    def _make_subdirectory(self, folder: str) -> None:
        path = os.path.join(self._directory, folder)
        try:
            os.mkdir(path)
            if self.keeping is not None and self.keeping.synchronizes:
                synchronize_directory(self._directory)
        except FileExistsError:
            self.say(self._lines.subdirectory_exists(path))
        except OSError as error:
            lines = self._lines.cannot_create_subdirectory(path, _words(error))
            raise _RefusedError(Status.CANNOT_UNDERSTAND, lines) from None
        else:
            self.say(self._lines.subdirectory_created(path))

    def _name(self, request: CStoreRequest, folder: str) -> FileName:
        try:
            return self._names.name(
                request.affected_sop_class_uid or "",
                request.affected_sop_instance_uid or "",
                folder=folder,
                now=_now() if self._options.output.file_names is FileNames.TIME else None,
                taken=lambda candidate: is_taken(os.path.join(self._directory, folder), candidate),
            )
        except NoFreeNameError as error:
            lines = self._lines.cannot_write(os.path.join(self._directory, folder), str(error))
            raise _RefusedError(Status.OUT_OF_RESOURCES, lines) from None

    def _place(self, request: CStoreRequest, reception: Reception, folder: str, name: FileName) -> FileName:
        """Give the completed file its name, which may have to be another one than was thought; return it."""
        replaces = self._options.output.file_names is not FileNames.TIME
        directory = os.path.join(self._directory, folder) if folder else self._directory
        if name.warning is not None:
            self.say(self._lines.warning(name.warning))
        for _ in range(FILE_NAME_TRIES_MAX):
            path = self._path(directory, name)
            if not self._options.output.bit_preserving:
                if self.is_verbose:
                    self.say(self._lines.storing(path))
                if replaces and os.path.isfile(path):
                    self.say(self._lines.overwriting(path))
            try:
                reception.place(path, replaces=replaces)
            except FileExistsError:  # another process took it meanwhile
                name = self._name(request, folder)
                continue
            except OSError as error:
                say_why = (
                    self._lines.cannot_create
                    if self._options.output.bit_preserving
                    else self._lines.cannot_write
                )
                raise _RefusedError(Status.OUT_OF_RESOURCES, say_why(path, _words(error))) from None
            self._stored = (directory, name.text)
            return name
        lines = self._lines.cannot_write(directory, "every name was taken")
        raise _RefusedError(Status.OUT_OF_RESOURCES, lines)

    def _path(self, directory: str, name: FileName) -> str:
        return os.path.join(directory, name.text)

    # Events

    def answered(self, store: StoreInProgress, answer: StoreAnswer) -> None:  # noqa: ARG002 - what was stored counts
        """Run the commands that follow an answer, then wait if that is asked for."""
        template = self._options.events.on_reception
        is_ignored = store.reception is None
        if template is not None and (is_ignored or self._stored is not None):
            directory, name = self._stored or (None, None)
            self._run(
                object_command(template, self._event_peer(template), directory=directory, file_name=name)
            )
        self._end_study()
        if self._options.trial.sleep_after:
            self._sleep(self._options.trial.sleep_after)
        self._is_receiving = False

    def meanwhile(self) -> None:
        """End the current study when its time is over; called while nothing comes."""
        super().meanwhile()
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
            self.say(self._lines.cannot_rename(directory, directory, _words(error)))
            return
        for renaming in renamings(ended.files, present):
            old = os.path.join(directory, renaming.old)
            name = renaming.new
            for _ in range(FILE_NAME_TRIES_MAX):
                new = os.path.join(directory, name)
                try:
                    rename_to_free_name(old, new)
                except FileExistsError:  # another process numbers files here too
                    name = next_number(name)
                    continue
                except OSError as error:
                    self.say(self._lines.cannot_rename(old, new, _words(error)))
                break

    def _event_peer(self, template: str) -> EventPeer:
        """Return who the values of a command are about. The name is looked up only when the command asks for it."""
        if "#r" not in template:
            return self._peer
        return EventPeer(
            calling_ae_title=self._peer.calling_ae_title,
            called_ae_title=self._peer.called_ae_title,
            host=self._host.short_name,
        )

    def _run(self, command: EventCommand) -> None:
        for warning in command.warnings:
            self.say(self._lines.warning(warning))
        try:
            self._runner.run(command.text)
        except OSError as error:
            self.say(self._lines.cannot_execute(_words(error)))


def _sorter(options: StorescpOptions) -> StudySorter | None:
    output, events = options.output, options.events
    if output.sort is SortMode.NONE or options.trial.ignore:
        return None
    return StudySorter(
        output.sort,
        output.sort_prefix,
        timeout=events.study_timeout,
        keeps_names=events.rename_on_study_end,
    )


def _now() -> datetime:
    return datetime.now().astimezone()


@lru_cache(maxsize=16)  # the classes of some associations
def _clean_class(uid: str | None) -> str:
    return _without_white_space(uid)


def _without_white_space(uid: str | None) -> str:
    """Put a UID of the command right, as those of the data set are."""
    return clean_uid((uid or "").encode("latin-1", "replace"), correct_input=True)


def _text(value: bytes) -> str:
    return value.decode("latin-1").rstrip("\0 ")


def _words(error: OSError) -> str:
    return error.strerror or str(error)
