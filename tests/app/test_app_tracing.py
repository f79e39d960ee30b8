"""Traces as the settings ask for them: what is refused and in which words, and one of a real server, from store to commitment."""

import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from blake3 import blake3

from stowkeeper.app.commands import run
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.settings import SettingsError, load_settings
from stowkeeper.app.tracing import _headers_in, check_tracing
from stowkeeper.services.tracing.limits import HEADERS_BYTES_MAX
from support.instances import CT_IMAGE_STORAGE, make_instance
from support.orthanc_rig import part10_of
from support.quick_web import PLAIN_HTTP
from support.raw_commitment import action_data, ask, push_model_context
from support.raw_peer import EXPLICIT_VR_LITTLE_ENDIAN, Context, RawPeer
from support.scripted_acceptor import Acceptor, scripted_acceptor
from support.server_process import ServerProcess, serve_process
from support.stow_bodies import RELATED, body_of
from support.trace_collector import CollectedSpan, Collector, collecting

ENDPOINT = '[tracing]\nendpoint = "http://127.0.0.1:9/v1/traces"\n'


def check(folder: Path, text: str) -> None:
    path = folder / "stowkeeper.toml"
    path.write_text(text, encoding="utf-8")
    check_tracing(load_settings(str(path), {}, {}))


def problems_of(folder: Path, text: str) -> str:
    with pytest.raises(SettingsError) as raised:
        check(folder, text)
    return str(raised.value)


# The settings.


def test_there_are_no_traces_as_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    check(tmp_path, "")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://collector.example:4318", "http://collector.example:4318/v1/traces"),
        ("https://collector.example/", "https://collector.example/v1/traces"),
        ("http://[::1]:4318/otlp", "http://[::1]:4318/otlp"),
        ("", ""),
    ],
)
def test_an_endpoint_without_a_path_gets_that_of_otlp(tmp_path: Path, given: str, used: str) -> None:
    path = tmp_path / "stowkeeper.toml"
    path.write_text(f'[tracing]\nendpoint = "{given}"\n', encoding="utf-8")
    assert load_settings(str(path), {}, {}).tracing.endpoint == used


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('endpoint = "collector:4318"', "is no URL that begins with http:// or https://"),
        ('endpoint = "http://a:99999/"', "is no URL that begins with http:// or https://"),
        ('endpoint = "http://user:hush@a/"', "it holds a user or a password"),
        ('endpoint = "http://a/v1/traces?key=hush"', "has more than a host and a path"),
        ('headers_file = "a"', "tracing.headers_file: it is for a collector"),
        ('ca_file = "a"', "tracing.ca_file: it is for a collector"),
        ('endpoint = "http://a/"\nca_file = "a"', "it is for an https endpoint"),
        ("share = 0", "share"),
        ("share = 1.5", "share"),
        ('service_name = ""', "service_name"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    assert words in problems_of(tmp_path, f"[tracing]\n{text}\n")


@pytest.mark.slow
def test_without_the_extra_the_cure_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "stowkeeper.services.tracing.exporting", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    config = tmp_path / "stowkeeper.toml"
    config.write_text(ENDPOINT, encoding="utf-8")
    assert run(["check-config", "--config", str(config)]) == ExitCode.SETTINGS
    assert "tracing.endpoint: traces take packages that are not installed: `python -m pip install" in (
        said := capsys.readouterr().err
    )
    assert "'stowkeeper[otel]'" in said
    assert run(["check-config", "--config", str(config), "--json"]) == ExitCode.SETTINGS
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["place"] == f"{config}: tracing.endpoint"
    # The start ends with the same sentence, before anything is received.
    archive = str(tmp_path / "archive")
    assert run(["serve", "--config", str(config), "--archive", archive, "--port", "0"]) == ExitCode.SETTINGS
    assert "traces take packages that are not installed" in capsys.readouterr().err


def test_headers_are_fields_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("# for people\n\nAuthorization: Bearer hush\nX-Scope-OrgID:  a b \n")
    check(tmp_path, f'{ENDPOINT}headers_file = "headers"\n')
    settings = load_settings(str(tmp_path / "stowkeeper.toml"), {}, {})
    assert _headers_in(settings, settings.tracing.headers_file) == {
        "Authorization": "Bearer hush",
        "X-Scope-OrgID": "a b",
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"X-A: b\nAuthorization Bearer hush\n", "line 2 of {path} is no header field"),
        (b"Authorization: \xffhush\n", "line 1 of {path} is no header field"),
        (b"Authorization:\n", "line 1 of {path} is no header field"),
        (b"X: " + b"hush" * HEADERS_BYTES_MAX, "has more than"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_headers_file_that_cannot_be_used_is_named_and_not_quoted(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "headers"
    if content is not None:
        path.write_bytes(content)
    said = problems_of(tmp_path, f'{ENDPOINT}headers_file = "headers"\n')
    assert words.format(path=path) in said
    assert "tracing.headers_file" in said
    assert "hush" not in said


def test_authorities_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    settings = '[tracing]\nendpoint = "https://a/"\nca_file = "ca.pem"\n'
    assert f"tracing.ca_file: {tmp_path / 'ca.pem'} cannot be used" in problems_of(tmp_path, settings)


# A server.


@pytest.fixture
def pacs() -> Iterator[Acceptor]:
    with scripted_acceptor() as running:
        yield running


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def store(server: ServerProcess) -> None:
    """Store instance 1, and send another one under a name that is not its own."""
    instance = make_instance(1)
    context = Context(
        context_id=1,
        abstract_syntax=instance.sop_class_uid,
        transfer_syntaxes=(EXPLICIT_VR_LITTLE_ENDIAN,),
    )
    with RawPeer(server.port) as peer:
        peer.associate(context, calling=b"SCANNER")
        assert peer.store(instance.sop_instance_uid, instance.data).status == 0
        assert peer.store("1.2.3.99", instance.data).status != 0
        peer.release()


def ask_to_commit(server: ServerProcess, transaction_uid: str) -> None:
    with RawPeer(server.port) as peer:
        peer.associate(push_model_context(), calling=b"SCANNER")
        references = [(CT_IMAGE_STORAGE, "1.2.3.1")]
        assert ask(peer, action_data(transaction_uid, references)).status == 0
        peer.release()


def spans_sent(client: httpx.Client) -> float:
    """Return what the server's metrics say of the spans that it sent."""
    page = client.get("/metrics").text
    found = re.search(r'^stowkeeper_trace_spans_total\{outcome="sent"\} (\S+)$', page, re.MULTILINE)
    return float(found[1]) if found else 0.0


def named(spans: list[CollectedSpan], name: str) -> list[CollectedSpan]:
    return [span for span in spans if span.name == name]


def run_two_servers(folder: Path, collector: Collector, pacs: Acceptor) -> str:
    """Let a server take instances and forward one, and another commit it; return the id of the first association."""
    (folder / "headers").write_text("Authorization: Bearer hush\n")
    settings = (
        '[[peers]]\nname = "scanner"\nae_title = "SCANNER"\nhost = "127.0.0.1"\nport = 1\n'
        f'[[peers]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs.port}\n'
        '[[forwarding_rules]]\nname = "of the scanner"\ncalling_ae_titles = ["SCANNER"]\nto = ["pacs"]\n'
        f'[tracing]\nendpoint = "http://127.0.0.1:{collector.port}"\n'
        'headers_file = "headers"\nservice_name = "archive 1"\n'
    )
    with serve_process(folder, settings=settings, environment={"STOWKEEPER_HTTP__PORT": "0"}) as server:
        store(server)
        found = re.search(r"^stowkeeper ready .*\bhttp=(\S+)", server.log_text(), re.MULTILINE)
        assert found is not None
        with httpx.Client(base_url=f"http://{found[1]}", verify=PLAIN_HTTP) as client:
            body = body_of(part10_of(make_instance(2)))
            answer = client.post("/dicom-web/studies", content=body, headers={"Content-Type": RELATED})
            assert answer.status_code == 200
            collector.wait(
                lambda: (
                    len(named(collector.spans, "listing")) == 2
                    and bool(named(collector.spans, "association"))
                ),
                "listing of both",
            )
            collector.wait(lambda: bool(named(collector.spans, "forward")), "forward")
            server.program.wait_until(lambda: spans_sent(client) >= 4, "before it counted what it sent")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        log = server.log_text()

    # Another process of the archive, as it may be a year later.
    with serve_process(folder, settings=settings) as server:
        ask_to_commit(server, "1.2.840.1")
        collector.wait(lambda: bool(named(collector.spans, "storage commitment check")), "check")
        collector.wait(lambda: bool(named(collector.spans, "storage commitment report")), "report")
        store(server)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    found_ids: list[str] = re.findall(r" what=released association=(\S+) calling=SCANNER", log)
    return found_ids[0]


def check_trace(collector: Collector, association_id: str) -> CollectedSpan:
    """See that all of instance 1 lies in the trace of its association; return the span of its commitment."""
    trace_id = blake3(association_id.encode()).hexdigest()[:32]
    trace = collector.trace(trace_id)
    (root,) = named(trace, "association")
    kept, refused = sorted(named(trace, "C-STORE"), key=lambda span: str(span.failure or ""))
    (listing,) = named(trace, "listing")
    (check,) = named(trace, "storage commitment check")
    (forward,) = named(trace, "forward")
    assert len(trace) == 6
    assert (root.parent_id, kept.parent_id, refused.parent_id) == ("", root.span_id, root.span_id)
    assert {listing.parent_id, check.parent_id, forward.parent_id} == {kept.span_id}
    assert (forward.attributes["stowkeeper.destination"], forward.failure) == ("pacs", None)
    assert forward.attributes["stowkeeper.job.attempts"] == 1
    assert root.attributes["dicom.calling_ae_title"] == "SCANNER"
    assert root.attributes["client.address"] == "127.0.0.1"
    assert (kept.attributes["dicom.status"], kept.failure) == ("0000H", None)
    assert (refused.failure or "").startswith("refused: ")
    assert root.start <= kept.start <= kept.end <= root.end
    assert kept.start <= listing.start <= listing.end <= check.end
    return check


def check_others(collector: Collector, check: CollectedSpan) -> None:
    """See what has traces of its own: the request by HTTP, and the transaction."""
    (by_http,) = named(collector.spans, "store request by HTTP")
    (part,) = named(collector.spans, "STOW-RS instance")
    assert (part.trace_id, part.parent_id) == (by_http.trace_id, by_http.span_id)
    assert named(collector.trace(part.trace_id), "listing")[0].parent_id == part.span_id

    (transaction,) = named(collector.spans, "storage commitment")
    assert check.links == ((transaction.trace_id, transaction.span_id),)
    assert transaction.failure is None
    report = named(collector.spans, "storage commitment report")[0]
    assert report.parent_id == transaction.span_id
    assert report.failure  # nobody listens at the port of the peer


@pytest.mark.slow
def test_what_becomes_of_an_instance_lies_in_one_trace_whatever_process_does_it(
    tmp_path: Path, collector: Collector, pacs: Acceptor
) -> None:
    association_id = run_two_servers(tmp_path, collector, pacs)
    check_others(collector, check_trace(collector, association_id))
    # What came just before the end is told as well.
    assert len(named(collector.spans, "C-STORE")) == 4
    assert len(named(collector.spans, "association")) == 3
    assert {span.resource["service.name"] for span in collector.spans} == {"archive 1"}
    assert {fields["authorization"] for _, fields in collector.requests} == {"Bearer hush"}
    assert len({(span.trace_id, span.span_id) for span in collector.spans}) == len(collector.spans)
    everything = repr(collector.spans)
    assert "Test" not in everything
    assert "P1" not in everything
