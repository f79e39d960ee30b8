"""`rules test` shows what rules would send where, of what is in the archive, and why; and changes nothing."""

import gc
import tracemalloc
from pathlib import Path

import pytest

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.archive import catalog
from stowkeeper.database.engine import Database
from stowkeeper.services.conditions import Conditions
from stowkeeper.services.forwarding.rules import ForwardingRule
from stowkeeper.services.forwarding.trial import Trial, kept_arrivals
from stowkeeper.services.peers import Peer, PeerBook
from support.catalog_rows import make_entry, open_database
from support.command_line import CommandLine, keep
from support.instances import make_instance

STUDY, OTHER = "1.2.10", "1.2.20"

PEERS = """
[[peers]]
name = "pacs"
ae_title = "PACS"
host = "10.0.0.9"
port = 104
[[peers]]
name = "scanner"
ae_title = "SCANNER"
host = "192.0.2.17"
port = 104
"""
RULES = """
[[forwarding_rules]]
name = "everything"
to = ["pacs", "scanner"]
[[forwarding_rules]]
name = "first study"
attributes = {StudyInstanceUID = "1.2.10"}
to = ["pacs"]
priority = 5
[[forwarding_rules]]
name = "one patient"
attributes = {PatientName = "Wanted*"}
to = ["cloud"]
when = "study.quiet"
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with three instances of two studies, and rules for them."""
    archive = tmp_path_factory.mktemp("kept") / "archive"
    keep(
        archive,
        make_instance(1, study=STUDY),
        make_instance(2, study=STUDY),
        make_instance(3, study=OTHER, series="1.2.20.1").sent_by("OTHER"),
    )
    Path(archive, "stowkeeper.toml").write_text(PEERS + RULES, encoding="utf-8")
    return archive


@pytest.fixture
def stow(kept: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(kept, capsys)


def counts(report: dict[str, object]) -> dict[str, tuple[int, int]]:
    """Return instances and studies by rule and destination."""
    found = {name: report[name] for name in ("unmatched", "all")}
    for rule in report["rules"]:  # type: ignore[attr-defined]  # it is JSON
        found[rule["rule"]] = rule["fits"]
        found |= {f"{rule['rule']} to {to['destination']}": to for to in rule["to"]}
    return {name: (numbers["instances"], numbers["studies"]) for name, numbers in found.items()}  # type: ignore[index]  # likewise


def test_each_instance_counts_once_for_a_destination(stow: CommandLine) -> None:
    ended = stow("rules test", "--json")
    assert ended.code == 0
    (report,) = ended.lines
    assert counts(report) == {
        "unmatched": (0, 0),
        "all": (3, 2),
        "everything": (3, 2),
        "everything to pacs": (1, 1),
        "everything to scanner": (1, 1),
        "first study": (2, 1),
        "first study to pacs": (2, 1),
        "one patient": (0, 0),
        "one patient to cloud": (0, 0),
    }
    everything, first, patient = report["rules"]
    assert [to["not_sent_back"] for to in everything["to"]] == [0, 2]
    assert (first["priority"], first["when"], patient["when"]) == (5, "received", "study.quiet")
    assert first["to"][0]["bytes"] == sum(
        row["size"] for row in stow.list("instances") if row["study_instance_uid"] == STUDY
    )
    assert "Nobody defines the destination cloud" in ended.err


def test_it_is_a_table_for_people(stow: CommandLine) -> None:
    ended = stow("rules test")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0].split() == ["Rule", "To", "When", "Inst.", "Studies", "Size"]
    rows = [line.split() for line in lines]
    assert ["first", "study", "pacs", "at", "once", "2", "1"] in [row[:-2] for row in rows]
    assert ["one", "patient", "cloud", "when", "the", "study", "is", "quiet", "0", "0"] in [
        row[:-2] for row in rows
    ]
    assert ["(no", "rule)", "0", "0"] in [row[:-2] for row in rows]
    assert "everything: not sent back to scanner, from which they came: 2" in lines


def test_a_study_and_a_time_choose_what_is_tried(stow: CommandLine) -> None:
    (report,) = stow("rules test", "--study", OTHER, "--json").lines
    assert counts(report)["unmatched"] == (0, 0)
    assert counts(report)["first study"] == (0, 0)
    assert report["all"]["instances"] == 1
    assert stow("rules test", "--since", "1d", "--json").lines[0]["all"]["instances"] == 3
    assert stow("rules test", "--since", "2200", "--json").lines[0]["all"]["instances"] == 0
    assert stow("rules test", "--study", STUDY, "--since", "2200", "--json").lines[0]["all"]["instances"] == 0
    unknown = stow("rules test", "--study", "1.2.99")
    assert unknown.code == ExitCode.FINDINGS
    assert "The archive keeps nothing of a study 1.2.99." in unknown.err


def test_a_draft_is_tried_in_place_of_what_is_in_force(
    stow: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = tmp_path / "draft.toml"
    draft.write_text(
        '[[peers]]\nname = "new"\nae_title = "NEW"\n[[forwarding_rules]]\nname = "draft"\nmodalities = ["MR"]\nto = ["new", "pacs"]\n',
        encoding="utf-8",
    )
    # What the environment says of the settings in force is not about a draft.
    monkeypatch.setenv("STOWKEEPER_FORWARDING_RULES", '[{"name": "env", "to": ["pacs"]}]')
    ended = stow("rules test", "--rules", draft, "--json")
    assert [rule["rule"] for rule in ended.lines[0]["rules"]] == ["draft"]
    assert counts(ended.lines[0])["unmatched"] == (3, 2)
    assert ended.err == ""
    assert [rule["rule"] for rule in stow("rules test", "--json").lines[0]["rules"]] == ["env"]

    draft.write_text('[[forwarding_rules]]\nname = "draft"\nto = []\n', encoding="utf-8")
    ended = stow("rules test", "--rules", draft)
    assert ended.code == ExitCode.SETTINGS
    assert 'forwarding_rules, entry 1 "draft": to: it names no destination' in ended.err
    assert stow("rules test", "--rules", tmp_path / "none.toml").code == ExitCode.SETTINGS


def test_an_instance_is_explained_rule_by_rule(stow: CommandLine) -> None:
    ended = stow("rules test", "--explain", "1.2.3.1")
    assert ended.out.splitlines() == [
        "everything: it fits; not to pacs: it goes there by the rule first study; not to scanner: it came from there",
        "first study: it fits; it goes to pacs, at once",
        "one patient: it does not fit: its PatientName is another",
    ]
    (report,) = stow("rules test", "--explain", "1.2.3.1", "--json").lines
    assert report["rules"][0]["passed_over"] == [
        {"destination": "pacs", "why": "it goes there by the rule first study"},
        {"destination": "scanner", "why": "it came from there"},
    ]
    assert report["rules"][1] == {
        "rule": "first study",
        "fits": True,
        "unmet": None,
        "to": ["pacs"],
        "passed_over": [],
    }
    assert report["rules"][2]["unmet"] == "its PatientName is another"


def test_an_explanation_has_no_patient_in_it(stow: CommandLine) -> None:
    for arguments in (("--explain", "1.2.3.1"), ("--explain", "1.2.3.1", "--json"), (), ("--json",)):
        ended = stow("rules test", *arguments)
        assert "Test^Patient" not in ended.out + ended.err
        assert "Wanted" not in ended.out + ended.err


def test_an_instance_that_goes_nowhere_is_said_to(stow: CommandLine, tmp_path: Path) -> None:
    draft = tmp_path / "draft.toml"
    draft.write_text('[[forwarding_rules]]\nname = "a"\nmodalities = ["MR"]\nto = ["x"]\n', encoding="utf-8")
    ended = stow("rules test", "--rules", draft, "--explain", "1.2.3.3")
    assert ended.out.splitlines() == ["a: it does not fit: its modality is CT", "It goes nowhere."]


def test_what_is_not_there_is_said(stow: CommandLine, tmp_path: Path) -> None:
    ended = stow("rules test", "--explain", "1.2.3.99")
    assert (ended.code, "keeps no instance 1.2.3.99" in ended.err) == (ExitCode.FINDINGS, True)
    ended = stow("rules test", "--explain", "1.2.3.1", "--study", STUDY)
    assert ended.code == ExitCode.USAGE
    stow.archive = tmp_path / "none"
    ended = stow("rules test")
    assert (ended.code, "there is no archive in" in ended.err) == (ExitCode.NO_INPUT, True)


def test_without_rules_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path / "archive", make_instance(1))
    ended = CommandLine(tmp_path / "archive", capsys)("rules test", "--json")
    assert ended.code == 0
    assert "There are no [[forwarding_rules]]" in ended.err
    assert counts(ended.lines[0]) == {"unmatched": (1, 1), "all": (1, 1)}


def test_a_peer_of_the_database_is_a_destination(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "archive"
    keep(archive, make_instance(1))
    with open_database(archive, sync=False) as database:
        book = PeerBook((), database)
        with database.write() as transaction:
            book.put(
                transaction, Peer(name="back", ae_title="SCANNER", host="192.0.2.17", port=104), "a test"
            )
    draft = tmp_path / "draft.toml"
    draft.write_text('[[forwarding_rules]]\nname = "a"\nto = ["back"]\n', encoding="utf-8")
    ended = CommandLine(archive, capsys)("rules test", "--rules", draft, "--json")
    assert ended.err == ""
    assert ended.lines[0]["rules"][0]["to"][0] == {
        "destination": "back",
        "instances": 0,
        "studies": 0,
        "bytes": 0,
        "not_sent_back": 1,
    }


def test_more_senders_than_are_remembered_are_told_apart(
    stow: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stowkeeper.app.commands.rules.SENDERS_REMEMBERED", 1)
    (report,) = stow("rules test", "--json").lines
    assert [to["not_sent_back"] for to in report["rules"][0]["to"]] == [0, 2]


def test_nothing_is_changed(stow: CommandLine) -> None:
    def state() -> list[tuple[str, bytes | int]]:
        return [
            (str(path), path.read_bytes())
            for path in sorted(stow.archive.rglob("*"))
            if path.is_file() and not path.name.endswith(("-wal", "-shm", ".lock"))
        ]

    before = state()
    stow("rules test")
    stow("rules test", "--explain", "1.2.3.1")
    assert state() == before


def test_what_was_received_before_is_left_out_wherever_it_stands(tmp_path: Path) -> None:
    with open_database(tmp_path, sync=False) as database:
        for number, second in ((1, 5), (2, 20), (3, 10), (4, 30)):
            with database.write() as transaction:
                catalog.insert(transaction, [make_entry(number, second)])
        found = [
            arrival.sop_instance_uid
            for _, arrival in kept_arrivals(database, (), received_from="2026-01-02T00:00:15")
        ]
    assert found == ["1.2.3.2", "1.2.3.4"]


def walk_peak(database: Database) -> tuple[int, int]:
    """Walk over everything; return how many there were, and the peak of memory in bytes.

    What other threads of this process allocate meanwhile is counted too, and can only add: the least of some walks counts.
    """
    rule = ForwardingRule(name="a", conditions=Conditions(modalities=("CT",)), to=("x",))
    peaks = []
    for _ in range(3):
        trial = Trial([rule], lambda _: frozenset())
        gc.collect()
        tracemalloc.start()
        try:
            for key, found in kept_arrivals(database, ()):
                trial.put(key, found)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return trial.all.instances, min(peaks)


@pytest.mark.slow
def test_an_archive_is_walked_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stowkeeper.services.forwarding.trial.ROWS_PER_PAGE", 50)
    with open_database(tmp_path, sync=False) as database:

        def put(numbers: range) -> None:
            with database.write() as transaction:
                catalog.insert(transaction, [make_entry(n, n) for n in numbers])

        put(range(150))
        walk_peak(database)  # compiles the statement
        few, of_few = walk_peak(database)
        put(range(150, 1500))
        many, of_many = walk_peak(database)
    assert (few, many) == (150, 1500)
    # Ten times as many take what two pages take, one that is read and one that is next. Whoever kept them would take ten times it.
    assert of_many < of_few * 2.5
