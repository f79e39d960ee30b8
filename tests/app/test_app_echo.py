"""`stowkeeper echo`: one line and an exit code, whatever the peer does; and the address that it is given."""

import json
import re

import pytest

from stowkeeper.app.commands import run
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.upperlayer.negotiation import AcceptancePolicy
from stowkeeper.upperlayer.pdu import REJECTED_CALLED_AE_TITLE
from support.peers import Orthanc, ReceivingPeer
from support.processes import free_port
from support.scripted_acceptor import Act, Script, scripted_acceptor


def test_an_answer_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_acceptor() as acceptor:
        assert run(["echo", f"PEER@127.0.0.1:{acceptor.port}"]) == ExitCode.OK
    (request,) = acceptor.requests
    assert (request.called_ae_title, request.calling_ae_title) == ("PEER", "STOWKEEPER")
    assert request.user_information.operations_window is None
    output = capsys.readouterr().out
    pattern = (
        rf"PEER@127\.0\.0\.1:{acceptor.port} answered in \d+\.\d ms, after \d+\.\d ms for the association\.\n"
    )
    assert re.fullmatch(pattern, output)


def test_an_answer_for_scripts_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_acceptor() as acceptor:
        arguments = ["echo", "--json", "--calling-ae-title", "ME", f"PEER@localhost:{acceptor.port}"]
        assert run(arguments) == ExitCode.OK
    assert acceptor.requests[0].calling_ae_title == "ME"
    line = json.loads(capsys.readouterr().out)
    assert line.keys() == {"peer", "status", "association_milliseconds", "echo_milliseconds", "tls"}
    assert line["tls"] is None
    assert (line["peer"], line["status"]) == (f"PEER@localhost:{acceptor.port}", "0000H")


@pytest.mark.parametrize(
    ("script", "seconds", "words"),
    [
        (Script(on_request=lambda _: REJECTED_CALLED_AE_TITLE), "20", "rejected (1,1,7)"),
        (Script(on_request=lambda _: Act.ABORT), "20", "aborted"),
        (Script(on_request=lambda _: Act.SILENCE), "0.3", "did not answer the association request"),
        (Script(answer=lambda _: Act.SILENCE), "0.3", "nothing moved for 0.3 seconds"),
        (Script(answer=lambda _: 0x0110), "20", "answered 0110H Failed: processing failure"),
        (Script(policy=AcceptancePolicy(accepts_abstract_syntax=lambda _: False)), "20", "Verification"),
    ],
)
def test_anything_else_is_a_sentence_and_unavailable(
    script: Script, seconds: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_acceptor(script) as acceptor:
        code = run(["echo", "--timeout", seconds, f"PEER@127.0.0.1:{acceptor.port}"])
    assert code == ExitCode.UNAVAILABLE
    output, errors = capsys.readouterr()
    assert output == ""
    assert words in errors
    assert errors.count("\n") == 1


def test_nobody_there_is_unavailable(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["echo", f"PEER@127.0.0.1:{free_port()}"]) == ExitCode.UNAVAILABLE
    assert "nothing listens on that port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:104", "not of the form AET@HOST:PORT"),
        ("PEER@127.0.0.1", "not of the form"),
        ("PEER@:104", "not of the form"),
        ("PEER", "not of the form"),
        ("PEER@host:0", "is no port"),
        ("PEER@host:65536", "is no port"),
        ("PEER@host:dicom", "is no port"),
        ("PEER@host:１０４", "is no port"),
        ("@host:104", "is no AE title: it is empty"),
        ("A_TITLE_THAT_IS_TOO_LONG@host:104", "is no AE title: it has 24 characters"),
        (" PEER@host:104", "begins or ends with a blank"),
    ],
)
def test_a_wrong_address_is_a_wrong_usage(
    address: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["echo", address]) == ExitCode.USAGE
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "arguments", [["--calling-ae-title", "A\\B"], ["--timeout", "0"], ["--timeout", "soon"]]
)
def test_a_wrong_option_is_a_wrong_usage(arguments: list[str]) -> None:
    assert run(["echo", *arguments, "PEER@host:104"]) == ExitCode.USAGE


def test_an_ae_title_may_hold_an_at_sign() -> None:
    with scripted_acceptor() as acceptor:
        assert run(["echo", f"A@B@127.0.0.1:{acceptor.port}"]) == ExitCode.OK
    assert acceptor.requests[0].called_ae_title == "A@B"


@pytest.mark.parametrize("host", ["[::1]", "::1"])
def test_an_address_may_be_of_ipv6(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert run(["echo", f"PEER@{host}:{port}"]) == ExitCode.UNAVAILABLE
    assert f"[::1]:{port} cannot be reached" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.peer("storescp")
def test_dcmtk_answers(storescp: ReceivingPeer) -> None:
    assert run(["echo", storescp.address]) == ExitCode.OK


@pytest.mark.slow
@pytest.mark.peer("pynetdicom")
def test_pynetdicom_answers(pynetdicom_receiver: ReceivingPeer) -> None:
    assert run(["echo", pynetdicom_receiver.address]) == ExitCode.OK


@pytest.mark.slow
@pytest.mark.peer("Orthanc")
def test_orthanc_answers(orthanc: Orthanc) -> None:
    assert run(["echo", orthanc.address]) == ExitCode.OK
