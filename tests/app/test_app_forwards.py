"""Forwarding through real servers, from a reload of the settings to a server that sends back; and `stowkeeper forwards`."""

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.database.engine import Database
from stowkeeper.database.schema import changes, consumers, forwards, jobs, receipts
from support.catalog_rows import open_database
from support.command_line import CommandLine
from support.forwarding_rig import ForwardingRig, a_peer, forwarding_rig, rule
from support.instances import EXPLICIT_VR_LITTLE_ENDIAN, make_instance
from support.raw_peer import Context, RawPeer
from support.server_process import ServerProcess, looking_into, serve_process

# The command.


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ForwardingRig]:
    """Give an archive in which one instance waits, one is in a job, and one failed, for each of two destinations."""
    folder = tmp_path / "archive"
    folder.mkdir()
    with forwarding_rig(folder) as made:
        made.begin(rule("all", "LATER", "PACS"), peers=[a_peer("PACS")])
        made.keep(1, 2)
        made.look()
        with made.database.write() as transaction:
            transaction.execute(
                update(forwards)
                .where(forwards.c.forward_key == 1)
                .values(state="failed", words="it was refused")
            )
        yield made


@pytest.fixture
def stow(rig: ForwardingRig, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(rig.folder, capsys)


def listed(stow: CommandLine, *arguments: str) -> list[tuple[str, str, str]]:
    lines = stow("forwards ls", "--json", *arguments).lines
    return [(line["sop_instance_uid"], line["destination"], line["state"]) for line in lines]


@pytest.mark.slow
def test_forwards_are_listed_by_state_destination_and_study(stow: CommandLine) -> None:
    assert listed(stow, "--failed") == [("1.2.3.1", "LATER", "failed")]
    assert listed(stow, "--waiting", "--destination", "LATER") == [("1.2.3.2", "LATER", "waiting")]
    assert listed(stow, "--waiting", "--instance", "1.2.3.1") == [("1.2.3.1", "PACS", "queued")]
    assert len(listed(stow, "--study", "1.2.10")) == 4
    assert listed(stow, "--sent") == listed(stow, "--study", "1.2.99") == []
    assert len(listed(stow, "--limit", "3")) == 3
    (line,) = stow("forwards ls", "--json", "--failed").lines
    assert line["number"] == 1
    assert {"rule": "all", "words": "it was refused", "job_id": None, "priority": 0}.items() <= line.items()
    assert "it was refused" in stow("forwards ls").out
    assert "There are no such forwards" in stow("forwards ls", "--dropped").err


@pytest.mark.slow
def test_what_failed_is_tried_again(stow: CommandLine) -> None:
    ended = stow("forwards retry", "--destination", "LATER")
    assert (ended.code, ended.out, ended.err) == (ExitCode.OK, "1 to be tried again\n", "")
    assert [state for _, _, state in listed(stow, "--destination", "LATER")] == ["waiting", "waiting"]
    ended = stow("forwards retry", "--destination", "NOBODY")
    assert (ended.code, ended.out) == (ExitCode.FINDINGS, "")
    assert "There are no such forwards" in ended.err


@pytest.mark.slow
def test_of_what_a_job_has_the_job_is_named_and_what_hurries_it(stow: CommandLine) -> None:
    (job_id,) = {line["job_id"] for line in stow("forwards ls", "--json", "--destination", "PACS").lines}
    there = f"--archive {stow.archive}"
    ended = stow("forwards retry", "--destination", "PACS")
    assert (ended.code, ended.out) == (ExitCode.FINDINGS, "")
    assert (
        ended.err
        == f"2 are in a job, which tries by itself: `stowkeeper jobs retry {job_id} {there}` has it tried now.\n"
    )
    ended = stow("forwards retry", "--instance", "1.2.3.1", "--json")
    assert ended.lines == [{"changed": 1, "jobs": [job_id]}]  # the one that failed, of another destination
    ended = stow("forwards drop", "--destination", "PACS", "--instance", "1.2.3.1", "--reason", "over")
    assert (ended.code, ended.out) == (ExitCode.FINDINGS, "")
    assert ended.err.startswith("1 is in a job, and not dropped: ")
    assert f"`stowkeeper jobs cancel {job_id} {there}` gives up" in ended.err
    with open_database(stow.archive) as database, database.write() as transaction:
        transaction.execute(update(jobs).where(jobs.c.job_id == job_id).values(state="retry"))  # in back-off
    assert stow("jobs retry", job_id).code == ExitCode.OK
    assert stow("jobs cancel", job_id).code == ExitCode.OK


@pytest.mark.slow
def test_what_is_dropped_says_who_did_it_and_why_and_stands_in_the_audit_trail(stow: CommandLine) -> None:
    assert stow("forwards drop", "--reason", "it is gone").code == ExitCode.USAGE
    assert stow("forwards drop", "--reason", " ", "--all").code == ExitCode.USAGE
    assert stow("forwards drop", "--reason", "why", "--all", "--rule", "all").code == ExitCode.USAGE
    (job_id,) = {line["job_id"] for line in stow("forwards ls", "--json", "--destination", "PACS").lines}
    ended = stow("forwards drop", "--reason", "it is gone", "--all", "--json")
    assert (ended.code, ended.lines) == (ExitCode.OK, [{"changed": 2, "jobs": [job_id]}])
    assert len(listed(stow, "--dropped")) == 2
    assert stow("forwards ls", "--dropped", "--json").lines[0]["words"].endswith(": it is gone")
    (line,) = stow("audit ls", "--json").lines[:1]
    assert (line["action"], line["subject"]) == ("forwards dropped", "LATER")
    assert line["detail"] == "2 instances: it is gone"


@pytest.mark.slow
def test_the_status_tells_what_waits_and_failed_by_destination(stow: CommandLine) -> None:
    out = stow("status").out
    assert "to LATER: 1 waiting, 1 failed" in out
    assert "to PACS: 2 in a job" in out
    assert "not forwarded to LATER, and not tried again by itself: 1" in out
    assert "forwards ls --failed --destination LATER" in out
    assert "waits for LATER, which is neither a peer nor an origin server: 1" in out
    state = json.loads(stow("status", "--json").out)
    assert state["forwards"] == [
        {"destination": "LATER", "waiting": 1, "queued": 0, "failed": 1, "is_known": False},
        {"destination": "PACS", "waiting": 0, "queued": 2, "failed": 0, "is_known": True},
    ]
    stow("forwards drop", "--all", "--reason", "over")
    assert "to LATER" not in stow("status").out


# The servers.


def store(port: int, *numbers: int) -> None:
    context = Context(
        context_id=1,
        abstract_syntax="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntaxes=(EXPLICIT_VR_LITTLE_ENDIAN,),
    )
    with RawPeer(port) as peer:
        peer.associate(context)
        for number in numbers:
            instance = make_instance(number)
            answer = peer.store(
                instance.sop_instance_uid,
                instance.data,
                context_id=1,
                sop_class_uid=instance.sop_class_uid,
            )
            assert answer.status == 0
        peer.release()


@dataclass(frozen=True, slots=True)
class Server:
    """A server process with its folder, and its database to look into."""

    process: ServerProcess
    folder: Path
    database: Database

    @property
    def port(self) -> int:
        return self.process.port

    def asked(self, query: Any) -> list[Any]:
        with self.database.read() as connection:
            return list(connection.execute(query).all())

    def states(self) -> list[tuple[str, str]]:
        query = select(forwards.c.destination, forwards.c.state).order_by(forwards.c.forward_key)
        return [tuple(row) for row in self.asked(query)]

    def cursor(self) -> int | None:
        found = self.asked(select(consumers.c.seq).where(consumers.c.name == "forwarding"))
        return found[0][0] if found else None

    def outcomes(self) -> list[str]:
        return [row[0] for row in self.asked(select(receipts.c.outcome).order_by(receipts.c.receipt_key))]

    def take(self, settings: str) -> None:
        """Have it take rules, of which it has none yet or others."""
        before = self.process.log_text().count("settings read anew")
        (self.folder / "stowkeeper.toml").write_text(settings, encoding="utf-8")
        self.process.signal(signal.SIGHUP)
        self.wait_for(lambda: self.process.log_text().count("settings read anew") > before, "it reads them")
        self.wait_for(lambda: self.cursor() is not None, "it follows the changes")

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        self.process.program.wait_until(lambda: bool(condition()), f"before {what}")

    def is_quiet(self) -> bool:
        """Tell whether all changes were put to the rules, and no job is left to be done."""
        (newest,) = self.asked(select(func.max(changes.c.seq)))
        left = select(jobs.c.job_key).where(jobs.c.kind == "store", jobs.c.finished_at.is_(None))
        waiting = select(forwards.c.forward_key).where(forwards.c.state.in_(["waiting", "queued"]))
        return self.cursor() == newest[0] and not self.asked(left) and not self.asked(waiting)


@contextlib.contextmanager
def a_server(folder: Path) -> Iterator[Server]:
    folder.mkdir()
    own = f'[dicom]\nae_title = "{folder.name.upper()}"\n'
    with serve_process(folder, settings=own) as process, looking_into(process.archive) as reader:
        yield Server(process, folder, reader.database)


@pytest.mark.slow
def test_two_servers_whose_rules_name_each_other_do_not_loop(tmp_path: Path) -> None:
    with a_server(tmp_path / "alpha") as alpha, a_server(tmp_path / "beta") as beta:
        store(alpha.port, 1)  # before there were rules
        alpha.wait_for(lambda: alpha.outcomes() == ["stored"], "it is listed")
        beta.take(
            '[dicom]\nae_title = "BETA"\n[[peers]]\nname = "alpha"\nae_title = "ALPHA"\nhost = "127.0.0.1"\n'
            f'port = {alpha.port}\n[[forwarding_rules]]\nname = "on"\nto = ["alpha"]\n',
        )
        peer = f'[[peers]]\nname = "beta"\nae_title = "BETA"\nhost = "127.0.0.1"\nport = {beta.port}\n'
        rules = '[[forwarding_rules]]\nname = "on"\nto = ["beta"]\n'
        own = '[dicom]\nae_title = "ALPHA"\n'
        # Under another name, so that beta cannot tell from whom it has the instance, and sends it back.
        alpha.take(own + peer + 'own_ae_title = "MASKED"\n' + rules)
        store(alpha.port, 2)
        alpha.wait_for(lambda: "identical" in alpha.outcomes(), "it is back")
        alpha.wait_for(lambda: alpha.is_quiet() and beta.is_quiet(), "all is done")
        assert (alpha.states(), beta.states()) == ([("beta", "sent")], [("alpha", "sent")])
        assert (alpha.outcomes(), beta.outcomes()) == (["stored", "stored", "identical"], ["stored"])
        # Under its own name it gets nothing back.
        alpha.take(own + peer + rules)
        store(alpha.port, 3)
        alpha.wait_for(lambda: len(beta.outcomes()) == 2, "the next one is forwarded")
        alpha.wait_for(lambda: alpha.is_quiet() and beta.is_quiet(), "all is done")
        assert (len(alpha.states()), beta.states()) == (2, [("alpha", "sent")])
        assert len(alpha.outcomes()) == 4
        for server in (alpha, beta):
            server.process.signal(signal.SIGTERM)
            assert server.process.wait() == 0
