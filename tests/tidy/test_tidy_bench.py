"""The benchmark's own arithmetic: what it sends, and how it compares. Nothing here is timed."""

import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

import bars
import report
import run
from contenders import CONTENDERS, DROP_IN, DROP_IN_SHIPPED, SHIPPED_STORESCP, started_apart
from cstore_load import (
    Association,
    Instance,
    PeerFailed,
    encode_c_store,
    encode_requests,
    negotiate,
    run_load,
)
from dropin import COLD, WARM, Start, in_turns
from shipped import ShippedTurn
from support.peers import ReceivingPeer
from sustained import Template
from throughput import Turn

UID = "2.25.1234567890123456789012345678901234567"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
CONTEXT = (CT_IMAGE_STORAGE, "1.2.840.10008.1.2.1")


def make_instance(size: int = 1000, uid: str = UID) -> Instance:
    value = uid.encode() + b"\0" * (len(uid) % 2)
    head = b"\x08\x00\x18\x00UI" + len(value).to_bytes(2, "little") + value
    padding = b"\xe0\x7f\x10\x00OB\0\0" + size.to_bytes(4, "little") + bytes(size)
    return Instance(
        sop_class_uid=CONTEXT[0],
        sop_instance_uid=uid,
        transfer_syntax_uid=CONTEXT[1],
        data_set=head + padding,
    )


def pdvs_of(request: bytes) -> list[tuple[int, bytes]]:
    """Take P-DATA-TF PDUs apart into the flags and the data of their PDVs."""
    found = []
    at = 0
    while at < len(request):
        assert request[at] == 4
        length = int.from_bytes(request[at + 2 : at + 6], "big")
        assert int.from_bytes(request[at + 6 : at + 10], "big") == length - 4
        found.append((request[at + 11], request[at + 12 : at + 6 + length]))
        at += 6 + length
    return found


@pytest.mark.parametrize("size", [0, 2, 30, 32, 34, 126, 1000])
def test_a_request_is_cut_as_the_peer_wants_it(size: int) -> None:
    instance = make_instance(size)
    command, *data = pdvs_of(encode_c_store(instance, 1, 7, max_pdu_length=100))
    assert command[0] == 3
    assert UID.encode() in command[1]
    assert b"".join(piece for _, piece in data) == instance.data_set
    assert [flags for flags, _ in data] == [0] * (len(data) - 1) + [2]
    assert all(len(piece) + 6 <= 100 and len(piece) % 2 == 0 for _, piece in data)


def test_a_template_changes_the_uid_in_command_and_data_set() -> None:
    template = Template(make_instance(), 1, max_pdu_length=16384)
    first, second = bytes(template.with_uid(1)), bytes(template.with_uid(2))
    assert len(first) == len(second)
    assert UID.encode() not in first
    command, data = pdvs_of(first)
    uid = b"2.25.9" + b"1".rjust(len(UID) - 6, b"0")
    assert uid in command[1]
    assert uid in data[1]
    assert uid not in second


def test_a_template_needs_the_uid_whole() -> None:
    with pytest.raises(ValueError, match="does not stand whole"):
        Template(make_instance(), 1, max_pdu_length=32)


def turn(contender: str, round_number: int, rate: float, problem: str | None = None) -> Turn:
    return Turn(
        set_name="ct",
        associations=1,
        round_number=round_number,
        contender=contender,
        instances_a_second=rate,
        problem=problem,
    )


def test_ratios_are_those_of_one_round() -> None:
    turns = [
        *(turn(bars.SYNCED, number, rate) for number, rate in ((1, 100), (2, 50), (3, 80), (4, 70))),
        *(turn("storescp-b", number, rate) for number, rate in ((1, 200), (2, 50), (3, 100))),
        turn("storescp-b", 4, 0, problem="it ended"),
    ]
    results = report.Results(facts={"cores": "2"}, command="bench/run.py", turns=turns)
    (verdict,) = report.verdicts(results)
    assert verdict.measured == "0.80 (0.50–1.00)"
    assert verdict.met
    assert verdict.note == "3 rounds"
    page = report.markdown(results)
    assert "(failed turns: 1)" in page
    assert (
        "| ct: Stowkeeper / DCMTK storescp +B | ≥ 0.8, aim 1.0 | 0.80 (0.50–1.00) | yes | 3 rounds |" in page
    )


def test_a_missed_bar_and_a_failed_receiver_are_said() -> None:
    turns = [turn(bars.SYNCED, 1, 79), turn("storescp-b", 1, 100), turn("orthanc", 1, 0, problem="a\nb|c")]
    results = report.Results(facts={}, command="", turns=turns)
    (verdict,) = report.verdicts(results)
    assert not verdict.met
    assert "failed: a b\\|c" in report.markdown(results)


def shipped_turn(contender: str, seconds: float) -> ShippedTurn:
    return ShippedTurn(set_name="mr", round_number=1, contender=contender, instances=50, seconds=seconds)


def start(contender: str, state: str, seconds: float, problem: str | None = None) -> Start:
    return Start(contender=contender, state=state, round_number=1, seconds=seconds, problem=problem)


def test_the_drop_in_command_has_bars_of_its_own() -> None:
    ours = DROP_IN_SHIPPED.name
    results = report.Results(
        facts={},
        command="",
        turns=[turn(bars.SYNCED, 1, 1), turn("storescp-b", 1, 1000)],
        drop_in=[
            *(turn(bars.DROP_IN_B, 1, 99), turn("storescp-b", 1, 100)),
            *(turn(bars.DROP_IN, 1, 150), turn("storescp", 1, 100)),
        ],
        drop_in_shipped=[shipped_turn(ours, 0.1), shipped_turn(SHIPPED_STORESCP.name, 2.1)],
        starts=[
            *(start(ours, WARM, seconds) for seconds in (0.3, 0.4, 0.9)),
            start(ours, COLD, 5.0),
            start(ours, WARM, 0.0, problem="it ended"),
            start(SHIPPED_STORESCP.name, WARM, 0.03),
        ],
    )
    assert [(each.name, each.bound, each.measured, each.met) for each in report.verdicts(results)[1:]] == [
        ("ct: stowkeeper storescp +B / DCMTK storescp +B", "≥ 1.0", "0.99 (0.99–0.99)", False),
        ("ct: stowkeeper storescp / DCMTK storescp", "≥ 1.5", "1.50 (1.50–1.50)", True),
        (
            "mr: storescu as shipped into stowkeeper storescp as shipped / into storescp as shipped",
            *("≥ 20", "21.00 (21.00–21.00)", True),
        ),
        (
            "stowkeeper storescp as shipped: seconds from exec to listening, warm",
            *("< 0.5 s", "0.40 (0.30–0.90)", True),
        ),
    ]
    page = report.markdown(results)
    assert "## stowkeeper storescp +B, CT 512×512, 0.5 MB: one association, 1 rounds" in page
    assert "| stowkeeper storescp as shipped, cold | 1 | 5.00 (5.00–5.00) |" in page
    assert results.as_json()["starts"][3]["state"] == COLD


def test_bars_are_of_receivers_that_take_part() -> None:
    known = {**CONTENDERS, **DROP_IN}
    for bar in (*bars.BARS, *bars.DROP_IN_BARS):
        assert {bar.subject, bar.against} <= known.keys()


def test_the_two_of_a_pair_change_places(tmp_path: Path) -> None:
    pair = (DROP_IN["drop-in"], CONTENDERS["storescp"])
    turns = list(in_turns(pair, 3, tmp_path))
    assert [(number, contender.name) for number, contender, _ in turns] == [
        *((1, "drop-in"), (1, "storescp")),
        *((2, "storescp"), (2, "drop-in")),
        *((3, "drop-in"), (3, "storescp")),
    ]
    assert len({place for *_, place in turns}) == 6


@pytest.mark.slow
@pytest.mark.peer("storescp")
def test_a_receiver_apart_leaves_its_files_empty(tmp_path: Path) -> None:
    instance = make_instance()
    with started_apart(CONTENDERS["storescp-b"], tmp_path / "new" / "folder") as receiver:
        context_ids, max_pdu_length = negotiate(receiver.port, receiver.ae_title, [CONTEXT])
        requests = encode_requests([instance], context_ids, max_pdu_length)
        assert run_load(receiver.port, receiver.ae_title, [instance], requests, associations=1).refused == 0
    (stored,) = receiver.folder.iterdir()
    assert stored.stat().st_size == 0


@pytest.mark.slow
@pytest.mark.peer("storescp")
def test_a_load_is_stored_by_a_real_peer(storescp: ReceivingPeer) -> None:
    instances = [make_instance(uid=f"2.25.{number}") for number in range(1, 21)]
    context_ids, max_pdu_length = negotiate(storescp.port, storescp.ae_title, [CONTEXT])
    requests = encode_requests(instances, context_ids, max_pdu_length)
    load = run_load(storescp.port, storescp.ae_title, instances, requests, associations=1)
    assert load.statuses == Counter({0: 20})
    assert load.refused == 0
    assert len(storescp.stored_files()) == 20
    with pytest.raises(PeerFailed, match="does not accept"):
        negotiate(storescp.port, storescp.ae_title, [("1.2.3", "1.2.4")])


@pytest.mark.slow
@pytest.mark.peer("storescp")
def test_a_rejected_association_is_an_error(start_storescp: object) -> None:
    assert callable(start_storescp)
    refusing: ReceivingPeer = start_storescp("--refuse")
    with pytest.raises(PeerFailed, match="no association: PDU type 3"):
        Association(refusing.port, refusing.ae_title, [CONTEXT])


def test_the_parts_that_are_programs_are_there_and_take_what_they_are_told() -> None:
    folder = Path(run.__file__).parent
    page = (folder.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert f"--parts {','.join(run.PROGRAMS)}" in page
    for name, arguments in run.PROGRAMS.items():
        known = set(
            re.findall(
                r"add_argument\(\s*\"(--[a-z-]+)\"", (folder / f"{name}.py").read_text(encoding="utf-8")
            )
        )
        told = {word for word in shlex.split(arguments) if word.startswith("--")}
        assert told
        assert told <= known, name
        assert f"| `{name}` |" in page
    assert not set(run.PROGRAMS) & {*run.PARTS, *run.EXTRA_PARTS}


def test_programs_are_run_one_after_the_other_and_told_to_be_quick(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []

    def start(command: list[str], *, check: bool) -> subprocess.CompletedProcess[bytes]:
        assert not check
        started.append([Path(command[1]).name, *command[2:]])
        return subprocess.CompletedProcess(command, 1 if "check.py" in command[1] else 0)

    monkeypatch.setattr(subprocess, "run", start)
    assert run.run_programs(["check", "jobs"], is_quick=True) == ["check"]
    assert run.run_programs(["jobs"], is_quick=False) == []
    assert started == [
        ["check.py", *shlex.split(run.PROGRAMS["check"])],
        ["jobs.py", *shlex.split(run.PROGRAMS["jobs"])],
        ["jobs.py"],
    ]
    assert "bench/check.py" in capsys.readouterr().out
