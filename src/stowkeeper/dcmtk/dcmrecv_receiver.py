"""`dcmrecv`: what becomes of associations and objects.

It compares nothing: what a data set says of itself goes into its file, what the command says into the file's name.
"""

import contextlib
import os
import secrets
import time
from datetime import datetime
from typing import Final

from stowkeeper.dcmtk.dcmrecv_options import DcmrecvOptions, StorageMode, Subdirectories
from stowkeeper.dcmtk.encoding.errors import EmptyDataSetError, EncodingError, NotWritableError
from stowkeeper.dcmtk.file_names import DcmrecvNames, FileName, NoFreeNameError
from stowkeeper.dcmtk.host_names import PeerHost
from stowkeeper.dcmtk.incoming_file import synchronize_directory
from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.negotiation import DcmrecvRules, negotiate_dcmrecv, role_remarks
from stowkeeper.dcmtk.oflog.loggers import Loggers
from stowkeeper.dcmtk.receiver import SUCCESS, Receiver, StoreInProgress
from stowkeeper.dcmtk.reception import SERIES_DATE, Keeping, Reception, is_taken
from stowkeeper.dcmtk.study_folders import series_date_folder
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import generate_uid
from stowkeeper.dimse.errors import PeerError
from stowkeeper.dimse.message_types import CEchoRequest, CStoreRequest
from stowkeeper.net.handlers import AssociationFacts, StoreAnswer
from stowkeeper.upperlayer.negotiation import Accepted, AcceptedContext, Rejected
from stowkeeper.upperlayer.pdu import AssociateRQ

PROGRAM: Final = "dcmrecv"
LOGGER: Final = "dcmtk.apps.dcmrecv"

_OUT_OF_RESOURCES: Final = StoreAnswer(status=Status.OUT_OF_RESOURCES)
_CANNOT_UNDERSTAND: Final = StoreAnswer(status=Status.CANNOT_UNDERSTAND)
_WORDS: Final = {
    Status.SUCCESS: "Success",
    Status.OUT_OF_RESOURCES: "Refused: OutOfResources",
    Status.CANNOT_UNDERSTAND: "Error: CannotUnderstand",
}


class DcmrecvReceiver(Receiver):
    """The handlers of `dcmrecv`."""

    def __init__(
        self, options: DcmrecvOptions, rules: DcmrecvRules, keeping: Keeping | None, loggers: Loggers
    ) -> None:
        super().__init__(keeping, loggers.get(LOGGER))
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
        if self.log.effective_level <= LogLevel.INFO:
            host = PeerHost(facts.peer_address, looks_up=self._options.network.host_lookup)
            self.log.info(
                f"Association Received {host.short_name}: "
                f"{request.calling_ae_title} -> {request.called_ae_title}"
            )
        for remark in role_remarks(request, self._rules.profile):
            (self.log.error if remark.refused else self.log.warning)(
                f"{remark.sop_class_uid}: {remark.words}"
            )
        return negotiate_dcmrecv(request, self._rules)

    def association_opened(self, facts: AssociationFacts) -> None:
        """Log the answer."""
        if facts.rejection is not None:
            self.log.info(f"Refusing Association ({facts.words})")
            return
        request = facts.request
        peer_maximum = request.user_information.maximum_length if request is not None else 0
        self.log.info(f"Association Acknowledged (Max Send PDV: {max((peer_maximum or 131_072) - 12, 0)})")

    def association_ended(self, facts: AssociationFacts) -> None:
        """Log how it ended."""
        if facts.end == "released":
            self.log.info("Received Association Release Request")
        elif facts.end == "rejected":
            return
        elif facts.request is None:
            self.log.error(f"Receiving Association failed: {facts.words}")
        else:
            self.log.error(f"Association Aborted: {facts.words}")

    # Messages

    def echo(self, request: CEchoRequest, context: AcceptedContext) -> None:
        """Log a C-ECHO."""
        self.log.info(f"Received C-ECHO Request (MsgID {request.message_id})")
        self.log.info("Sending C-ECHO Response (Success)")

    def store_begins(self, request: CStoreRequest, context: AcceptedContext) -> None:
        """Log a C-STORE request."""
        self.log.info(f"Received C-STORE Request (MsgID {request.message_id})")

    def keep(self, store: StoreInProgress) -> StoreAnswer:
        """Store an object, or say by its status why not."""
        answer = self._keep(store)
        self.log.info(f"Sending C-STORE Response ({_WORDS[Status(answer.status)]})")
        return answer

    def _keep(self, store: StoreInProgress) -> StoreAnswer:
        reception = store.reception
        if reception is None:
            return SUCCESS
        try:
            if store.failure is not None:
                raise store.failure
            if self.keeping is not None and self.keeping.form is not None:
                reception.finish()
            reception.complete(reception.identity())
            directory, name = self._place(store.request, reception)
            if name.warning is not None:
                self.log.warning(name.warning)
            path = os.path.join(directory, name.text)
            if is_taken(directory, name.text):
                self.log.warning(f"file already exists, overwriting: {path}")
            reception.place(path)
        except EmptyDataSetError as error:
            self.log.error(f"cannot store received object: {error}")
            return _CANNOT_UNDERSTAND
        except NotWritableError as error:
            self.log.error(f"cannot store received object: {error}")
            return _OUT_OF_RESOURCES
        except EncodingError as error:
            raise PeerError(f"the data set cannot be read: {error}") from None
        except NoFreeNameError as error:
            self.log.error(f"cannot name received object: {error}")
            return _CANNOT_UNDERSTAND
        except OSError as error:
            self.log.error(f"cannot store received object: {_where(error)}{error.strerror or error}")
            return _OUT_OF_RESOURCES
        self.log.info(f"Stored received object to file: {path}")
        return SUCCESS

    def _place(self, request: CStoreRequest, reception: Reception) -> tuple[str, FileName]:
        """Find the directory of an object, made if need be, and its name in it. Raises OSError, NoFreeNameError."""
        now = datetime.now().astimezone()
        directory = self._directory
        if (
            self._options.subdirectories is Subdirectories.SERIES_DATE
            and self._options.storage_mode is StorageMode.NORMAL
        ):
            series_date = reception.value(SERIES_DATE).decode("latin-1")
            directory = self._make(series_date_folder(series_date, today=now.date()))
        name = self._names.name(
            request.affected_sop_class_uid or "",
            request.affected_sop_instance_uid or "",
            now=now,
            taken=lambda candidate: is_taken(directory, candidate),
        )
        return directory, name

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


def _where(error: OSError) -> str:
    """Name what a system call could not use; it is a path of ours."""
    name = error.filename2 or error.filename
    return f"{name}: " if name else ""
