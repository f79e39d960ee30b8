"""`stowkeeper send --commit` with files: after the sending the peer is asked to commit what it accepted.

Nothing of it is kept: the outcome is known only while the command runs.
"""

from collections import Counter
from collections.abc import Awaitable

import click

from stowkeeper.app.commands.commitment_waiting import Waiting
from stowkeeper.app.commands.event_loop import event_loop
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.peer_address import PeerAddress
from stowkeeper.app.commands.send_report import SendReport
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.net.association_errors import AssociationError
from stowkeeper.net.client import ClientAssociation, RequestHandler, association_request
from stowkeeper.services.commitment.asking_once import (
    OnceOptions,
    OnceResult,
    RequestRefusedError,
    ask_once,
)
from stowkeeper.services.commitment.push_model import PUSH_MODEL_CONTEXTS
from stowkeeper.services.peer_definition import Peer
from stowkeeper.services.send_plan import SendableFile
from stowkeeper.services.sending import Outcome, Result, SendObserver, SendOptions


class AcceptedFiles:
    """Takes note of the files that were accepted, and passes everything on to another observer."""

    def __init__(self, observer: SendObserver) -> None:
        self.files: list[SendableFile] = []
        self._observer = observer

    def sent(self, count: int) -> None:
        """Pass it on."""
        self._observer.sent(count)

    def decided(self, outcome: Outcome) -> None:
        """Take note of an acceptance."""
        if outcome.result is not Result.FAILED:
            self.files.append(outcome.file)
        self._observer.decided(outcome)

    def notice(self, words: str) -> None:
        """Pass it on."""
        self._observer.notice(words)


def ask_for_commitment(
    peer: PeerAddress,
    files: list[SendableFile],
    options: SendOptions,
    waiting: Waiting,
    report: SendReport,
) -> ExitCode:
    """Ask the peer to commit files that it accepted, and show what it says of each. OK only when it commits them all.

    Raises CommandError where it cannot be asked or refuses: then nothing is committed, as far as anybody knows.
    """
    references = {file.path: Reference(file.sop_class_uid, file.sop_instance_uid) for file in files}
    asked = Peer(name="", ae_title=peer.ae_title, host=peer.host, port=peer.port)

    def open_one(handler: RequestHandler) -> Awaitable[ClientAssociation]:
        request = association_request(
            called_ae_title=peer.ae_title,
            calling_ae_title=options.calling_ae_title,
            contexts=PUSH_MODEL_CONTEXTS,
        )
        return ClientAssociation.open(
            peer.host,
            peer.port,
            request,
            options.timeouts,
            handler=handler,
            tls=options.tls,
            server_name=options.server_name,
        )

    once = OnceOptions(
        wait_seconds=waiting.seconds,
        listen=waiting.listen,
        listen_tls=waiting.listen_tls,
        retries=options.retries,
        back_off_seconds=options.back_off_seconds,
    )
    try:
        with report.progress("Waiting for the commitment"), event_loop() as runner:
            result = runner.run(ask_once(asked, list(references.values()), open_one, once))
    except (AssociationError, RequestRefusedError) as error:
        raise CommandError(
            f"The files were accepted, and not committed: {error}", ExitCode.UNAVAILABLE
        ) from error
    return _show(result, files, references, report)


def _show(
    result: OnceResult, files: list[SendableFile], references: dict[str, Reference], report: SendReport
) -> ExitCode:
    counts: Counter[str] = Counter()
    for file in files:
        verdict = result.verdicts.get(references[file.path])
        if verdict is None:
            what, reason, words = "unknown", None, result.words
        elif verdict.is_committed:
            what, reason, words = "committed", None, ""
        else:
            what, words = "not committed", verdict.words
            reason = None if verdict.reason is None else f"{verdict.reason:04X}H"
        counts[what] += 1
        report.commitment(file, what, reason, words)
    if counts["not committed"]:
        return ExitCode.FINDINGS
    return ExitCode.TRY_AGAIN if counts["unknown"] else ExitCode.OK


def check_waiting(waiting: Waiting) -> None:
    """Refuse to ask without waiting: nobody would ever hear the answer."""
    if not waiting.seconds:
        raise click.UsageError(
            "--no-wait is for instances of an archive (--archive): of files nobody would hear the answer."
        )
