"""`stowkeeper commit`: ask a peer to take responsibility for instances of the archive (storage commitment)."""

import json
from collections.abc import Sequence
from contextlib import closing

import click

from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.commands.asked_peer import find_peer, own_ae_title
from stowkeeper.app.commands.commitment_lines import print_outcome, whole_row
from stowkeeper.app.commands.commitment_waiting import (
    Look,
    Waiting,
    exit_code_of,
    looking_at,
    submit_and_wait,
    transactions,
    wait_options,
)
from stowkeeper.app.commands.event_loop import event_loop
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.job_driver import server_runs
from stowkeeper.app.commands.options import SettingsArguments, json_option, place_options
from stowkeeper.app.commitment_terms import ask_terms
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.log_lines import printable
from stowkeeper.app.peer_book import configured_peers
from stowkeeper.app.settings import Settings
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.services.commitment.asking import ask, find_kept
from stowkeeper.services.commitment.asking_limits import REFERENCES_PER_REQUEST_MAX
from stowkeeper.services.peers import Peer, PeerBook
from stowkeeper.services.store_submission import kept_instances

ANSWER_SECONDS = 30.0
"""How long a peer that nobody defined may stand still; that of others stands in their definition."""


@click.command(
    epilog="Exit code 0 when a report of the peer says that everything is committed, and in no other case but that of"
    " --no-wait; 1 when something is not; 75 when no report came while it waited. docs/commands.md tells more."
)
@place_options
@click.option("--study", "studies", metavar="UID", multiple=True, help="All that is kept of this study.")
@click.option(
    "--calling-ae-title",
    metavar="AET",
    callback=own_ae_title,
    help="Our own AE title.  [default: what the peer's definition says, or that of the server that asks]",
)
@wait_options
@json_option
@click.argument("peer", metavar="PEER")
@click.argument("uids", metavar="[UID]...", nargs=-1)
def commit(
    *,
    archive: str | None,
    config: str | None,
    studies: tuple[str, ...],
    calling_ae_title: str,
    waiting: Waiting,
    as_json: bool,
    peer: str,
    uids: tuple[str, ...],
) -> ExitCode:
    """Ask a peer to commit instances of the archive (DICOM storage commitment).

    PEER is AET@HOST:PORT, or the name of a known peer. UIDs are those of studies, series or instances that the archive
    keeps and the peer was sent. The request is written down before it goes out, and is not forgotten: when this command
    ends before the report comes, a server on this archive takes it; stowkeeper commitments show UID tells what came of
    it. While no server runs the command itself asks, and takes a report in the association of the request, or on
    another one with --listen.

    Example: stowkeeper commit ARCHIVE@192.0.2.7:104 --study 1.2.840.99999.1
    """
    if not uids and not studies:
        raise click.UsageError("Say what is to be committed: --study UID, or UIDs.")
    settings = SettingsArguments(config_file=config, overrides={"archive": archive}).as_served().load()
    with closing(ArchiveReader(str(settings.archive_path))) as reader:
        peers = PeerBook(configured_peers(settings), reader.database)
        asked_peer = find_peer(peers, peer, calling_ae_title, ANSWER_SECONDS)
        instances = _kept(reader, (*studies, *uids))
        asked: list[str] = []

        def submit() -> Look:
            asked.extend(_ask(reader, settings, asked_peer, instances))
            _say_what_was_asked(asked, len(instances), asked_peer)
            return looking_at(reader.database, asked)

        with event_loop() as runner:
            runner.run(submit_and_wait(reader, settings, peers, waiting, submit))
        found = transactions(reader.database, asked)
        for commitment in found:
            if as_json:
                click.echo(json.dumps(whole_row(reader.database, commitment)))
            elif waiting.seconds:
                print_outcome(reader.database, commitment)
        code = exit_code_of(found)
        if code is ExitCode.TRY_AGAIN:
            _say_what_goes_on(reader)
            return code if waiting.seconds else ExitCode.OK
        return code


def _kept(reader: ArchiveReader, uids: Sequence[str]) -> list[str]:
    """Return the instances that UIDs name. Raises CommandError where nothing is kept of one."""
    wanted = list(dict.fromkeys(uids))
    with reader.database.read() as connection:
        found = kept_instances(connection, wanted)
    missing = [uid for uid in wanted if uid not in found]
    if missing:
        raise CommandError(f"Nothing is kept here of {', '.join(missing)}.", ExitCode.NO_INPUT)
    return list(dict.fromkeys(uid for some in found.values() for uid in some))


def _ask(reader: ArchiveReader, settings: Settings, peer: Peer, instances: Sequence[str]) -> list[str]:
    """Write down what is asked, in as many transactions as it takes; return their UIDs."""
    uids = []
    for first in range(0, len(instances), REFERENCES_PER_REQUEST_MAX):
        with reader.database.write() as transaction:
            kept = find_kept(transaction.connection, instances[first : first + REFERENCES_PER_REQUEST_MAX])
            if kept.references:
                commitment = ask(
                    transaction,
                    peer,
                    kept.references,
                    own_ae_title="",
                    created_by=acting_user(),
                    version_keys=kept.version_keys,
                    terms=ask_terms(settings),
                )
                uids.append(commitment.transaction_uid)
    return uids


def _say_what_was_asked(uids: Sequence[str], instances: int, peer: Peer) -> None:
    what = "1 instance" if instances == 1 else f"{instances} instances"
    click.echo(printable(f"{peer.name or peer.where} is asked for {what}, as {', '.join(uids)}"), err=True)


def _say_what_goes_on(reader: ArchiveReader) -> None:
    who = "The server" if server_runs(reader.root) else "The next server on this archive"
    click.echo(
        f"{who} goes on with it and takes the report; `stowkeeper commitments show UID` tells what came of it.",
        err=True,
    )
