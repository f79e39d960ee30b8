"""`dcmrecv`: what becomes of associations and objects.

It compares nothing: what a data set says of itself goes into its file, what the command says into the file's name.
"""

import contextlib
import os
import secrets
import time
from datetime import datetime
from typing import Final

from stowkeeper.dcmtk.dcmrecv_lines import DcmrecvLines
from stowkeeper.dcmtk.dcmrecv_options import DcmrecvOptions, FileNames, StorageMode, Subdirectories
from stowkeeper.dcmtk.encoding.errors import EmptyDataSetError, EncodingError, NotWritableError
from stowkeeper.dcmtk.file_names import DcmrecvNames, NoFreeNameError
from stowkeeper.dcmtk.host_names import PeerHost
from stowkeeper.dcmtk.incoming_file import synchronize_directory
from stowkeeper.dcmtk.limits import FILE_NAME_TRIES_MAX
from stowkeeper.dcmtk.log_lines import Condition
from stowkeeper.dcmtk.negotiation import DcmrecvRules, negotiate_dcmrecv, role_remarks
from stowkeeper.dcmtk.oflog.loggers import Loggers
from stowkeeper.dcmtk.receiver import SUCCESS, Receiver, StoreInProgress
from stowkeeper.dcmtk.reception import SERIES_DATE, Keeping, Reception, is_taken
from stowkeeper.dcmtk.study_folders import series_date_folder
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import generate_uid
from stowkeeper.dimse.message_types import CStoreRequest, CStoreResponse
from stowkeeper.net.handlers import AssociationFacts, StoreAnswer
from stowkeeper.upperlayer.negotiation import Accepted, AcceptedContext, Rejected
from stowkeeper.upperlayer.pdu import AssociateRJ, AssociateRQ

PROGRAM: Final = "dcmrecv"

_OUT_OF_RESOURCES: Final = StoreAnswer(status=Status.OUT_OF_RESOURCES)
_CANNOT_UNDERSTAND: Final = StoreAnswer(status=Status.CANNOT_UNDERSTAND)
_NEVER_TAKEN: Final = frozenset((FileNames.SHORT_UNIQUE, FileNames.TIME))
"""Schemes whose names never are those of other files."""


class DcmrecvReceiver(Receiver[DcmrecvLines]):
    """The handlers of `dcmrecv`."""

    def __init__(
        self,
        options: DcmrecvOptions,
        rules: DcmrecvRules,
        keeping: Keeping | None,
        loggers: Loggers,
        lines: DcmrecvLines,
    ) -> None:
        super().__init__(keeping, loggers, lines)
        self._options = options
        self._rules = rules
        self._directory = options.directory.rstrip(os.sep) or options.directory
        self._names = DcmrecvNames(
            options.file_names,
            options.extension,
            started_at=int(time.time()),
            new_uid=generate_uid,
            random_bits=lambda: secrets.randbits(32),
        )

    # Associations

    def negotiate(self, request: AssociateRQ, facts: AssociationFacts) -> Accepted | Rejected:
        """Decide by the profile."""
        if self.is_verbose:  # the name is looked up for those who read it
            host = PeerHost(facts.peer_address, looks_up=self._options.network.host_lookup)
            self.say(self._lines.association_received(request, self._rules.maximum_length, host.short_name))
        for remark in role_remarks(request, self._rules.profile):
            text = f"{remark.sop_class_uid}: {remark.words}"
            self.say(self._lines.error(text) if remark.refused else self._lines.warning(text))
        decision = negotiate_dcmrecv(request, self._rules)
        if isinstance(decision, Accepted):
            self.say(self._lines.acknowledged(request, decision.response))
        return decision

    def rejected(self, request: AssociateRQ | None, rejection: AssociateRJ, words: str) -> None:
        """Log a rejection."""
        self.say(self._lines.refused(request, rejection, words))

    def probed(self, address: str) -> None:
        """Log a connection that was merely looked at."""
        self.say(self._lines.probed(address))

    # Messages

    def store_begins(self, request: CStoreRequest, context: AcceptedContext) -> None:
        """Log a C-STORE request."""
        if self.is_verbose:
            self.say(self._lines.store_request(request, context.context_id))

    def given_up(self, store: StoreInProgress, words: str) -> None:
        """Log that there will be no answer."""
        cause = self.cause_of_end(store.facts)
        self.say(self._lines.store_failed(store.context.context_id, cause, words))

    def answered(self, store: StoreInProgress, answer: StoreAnswer) -> None:
        """Do nothing: there are no commands to run."""

    # Objects

    def keep(self, store: StoreInProgress) -> StoreAnswer:
        """Store an object, or say by its status why not."""
        answer = SUCCESS if store.reception is None else self._store(store, store.reception)
        if self.is_verbose:
            response = store.request.respond(answer.status)
            if isinstance(response, CStoreResponse):
                self.say(self._lines.store_response(response, store.context.context_id))
        return answer

    def _store(self, store: StoreInProgress, reception: Reception) -> StoreAnswer:
        path = self._directory
        try:
            if store.failure is not None:
                raise store.failure
            reception.finish()
            reception.complete(reception.identity())
            directory = self._make_directory(reception)
            path = self._place(store.request, reception, directory)
        except EmptyDataSetError as error:
            self.say(self._lines.cannot_store(path, str(error)))
            return _CANNOT_UNDERSTAND
        except NotWritableError as error:
            self.say(self._lines.cannot_store(path, str(error)))
            return _OUT_OF_RESOURCES
        except EncodingError as error:
            words = f"the data set cannot be read: {error}"
            raise self.end_of_association(Condition.RECEIVE_FAILED, words) from None
        except NoFreeNameError as error:
            self.say(self._lines.cannot_name(str(error)))
            return _CANNOT_UNDERSTAND
        except OSError as error:
            path = str(error.filename2 or error.filename or path)
            self.say(self._lines.cannot_store(path, error.strerror or str(error)))
            return _OUT_OF_RESOURCES
        self.say(self._lines.stored(path))
        return SUCCESS

    def _place(self, request: CStoreRequest, reception: Reception, directory: str) -> str:
        """Give the completed file its name; return its path. Raises OSError, NoFreeNameError."""
        replaces = self._options.file_names not in _NEVER_TAKEN
        for _ in range(FILE_NAME_TRIES_MAX):
            name = self._names.name(
                request.affected_sop_class_uid or "",
                request.affected_sop_instance_uid or "",
                now=datetime.now().astimezone(),
                taken=lambda candidate: is_taken(directory, candidate),
            )
            path = os.path.join(directory, name.text)
            if name.warning is not None:
                self.say(self._lines.warning(name.warning))
            if replaces and os.path.isfile(path):
                self.say(self._lines.overwriting(path))
            try:
                reception.place(path, replaces=replaces)
            except FileExistsError:  # another process took it meanwhile
                continue
            return path
        raise NoFreeNameError("every name was taken")

    def _make_directory(self, reception: Reception) -> str:
        """Return the directory for an object; by Series Date it is made if need be. Raises OSError."""
        if (
            self._options.subdirectories is Subdirectories.NONE
            or self._options.storage_mode is not StorageMode.NORMAL
        ):
            return self._directory
        series_date = reception.value(SERIES_DATE).decode("latin-1")
        return self._make(series_date_folder(series_date, today=datetime.now().astimezone().date()))

    def _make(self, folder: str) -> str:
        """Make the directories of a relative path below the output directory, and return the last."""
        directory = self._directory
        for part in folder.split("/"):
            parent, directory = directory, os.path.join(directory, part)
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory)
                if self.keeping is not None and self.keeping.synchronizes:
                    synchronize_directory(parent)
        return directory
