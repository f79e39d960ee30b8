"""TLS as a user sets it up: settings of the server, options of `send` and `echo`, and what is said when it is wrong."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from stowkeeper.app.commands import run, tls_options
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.setting_sources import all_settings
from stowkeeper.app.settings import SettingsError, load_settings, warnings_of
from stowkeeper.app.settings_of_tls import TLSSettings, tls_context
from stowkeeper.net.tls_context import PeerVerification, RevocationCheck, TLSOptions, acceptor_context
from stowkeeper.net.tls_material import FileFormat
from stowkeeper.net.tls_profiles import SecurityProfile, available_profiles
from support import forked
from support.command_line import program
from support.send_files import write_file
from support.server_process import serve_process
from support.server_thread import RecordingHandlers, ServerThread, serving
from support.tls_files import Identity, openssl
from support.tls_fixtures import TLSFiles
from support.tls_peer import TLSPeer, peer_context

pytestmark = pytest.mark.peer("openssl")

PASSWORD = "correct horse battery staple"


def toml(files: TLSFiles, identity: Identity | None = None, **more: Any) -> str:
    own = identity or files.server
    values: dict[str, Any] = {
        "certificate": own.certificate,
        "key": own.key,
        "ca_files": [files.authority.certificate],
        **more,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if value is not None]
    return "\n".join(["[tls]", *lines, ""])


def load(folder: Path, text: str) -> Any:
    (folder / "site.toml").write_text(text, encoding="utf-8")
    return load_settings(str(folder / "site.toml"), {}, {})


def problem(folder: Path, text: str) -> str:
    """Return what is wrong with settings, without the path of their file."""
    with pytest.raises(SettingsError) as caught:
        tls_context(load(folder, text))
    (only,) = caught.value.problems
    return str(only).removeprefix(f"{folder}/site.toml: ")


# Settings


def test_the_words_of_the_settings_are_those_of_the_network() -> None:
    def words(name: str) -> set[str]:
        return set(get_args(TLSSettings.model_fields[name].annotation))

    assert words("profile") == set(SecurityProfile)
    assert words("format") == set(FileFormat)
    assert words("peer_certificate") == set(PeerVerification)
    assert words("crl_check") == set(RevocationCheck)
    assert words("minimum_version") == {"profile", "1.2", "1.3"}


def test_there_is_no_tls_without_a_certificate(tmp_path: Path) -> None:
    assert tls_context(load(tmp_path, "")) is None
    text = "[tls]\nprofile = 'rfc8996'\nkey = ''\n"
    assert tls_context(load(tmp_path, text)) is None, "defaults that are written out ask for nothing"


@pytest.mark.parametrize("name", ["key", "ca_files", "peer_certificate", "profile"])
def test_a_setting_of_tls_without_a_certificate_is_a_problem(tmp_path: Path, name: str) -> None:
    value = {"key": "'a'", "ca_files": "['a']", "peer_certificate": "'ignore'", "profile": "'aes'"}[name]
    assert (
        problem(tmp_path, f"[tls]\n{name} = {value}\n")
        == f"tls.{name}: there is no TLS without tls.certificate"
    )


@pytest.mark.parametrize("chosen", [None, "require", "if-present"])
def test_a_server_that_nobody_could_connect_to_is_a_problem(
    tls_files: TLSFiles, tmp_path: Path, chosen: str | None
) -> None:
    words = problem(tmp_path, toml(tls_files, ca_files=None, peer_certificate=chosen))
    place = "tls.certificate" if chosen is None else "tls.peer_certificate"
    assert words.startswith(
        f'{place}: with tls.peer_certificate = "{chosen or "require"}" nobody could connect'
    )
    assert tls_context(load(tmp_path, toml(tls_files, ca_files=None, peer_certificate="ignore"))) is not None


def test_all_that_can_be_set_reaches_the_context(tls_files: TLSFiles, tmp_path: Path) -> None:
    encrypted = tls_files.server.encrypted(tmp_path, PASSWORD)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "cas").mkdir()
    (tmp_path / "cas" / "foreign.pem").write_bytes(Path(tls_files.foreign_authority.certificate).read_bytes())
    openssl("rehash", tmp_path / "cas")
    openssl(
        "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe3072", "-out", tmp_path / "dh.pem"
    )
    suite = "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384"
    text = toml(
        tls_files,
        encrypted,
        key_password_file="password",
        ca_directories=["cas"],
        crl_files=[tls_files.authority.revocation_list()],
        crl_check="chain",
        peer_certificate="if-present",
        profile="bcp195",
        minimum_version="1.2",
        cipher_suites=[suite],
        dh_parameters="dh.pem",
        server_name="archive.example",
    )
    tls = tls_context(load(tmp_path, text))
    assert tls is not None
    context = tls.ssl_context
    assert tls.profile is SecurityProfile.BCP_195
    assert context.cert_store_stats() == {"x509": 2, "x509_ca": 2, "crl": 1}
    assert context.verify_mode.name == "CERT_OPTIONAL"
    assert context.verify_flags.value & 12 == 12
    assert context.minimum_version.name == "TLSv1_2"
    assert "ECDHE-RSA-AES256-SHA384" in {cipher["name"] for cipher in context.get_ciphers()}
    assert context.sni_callback is not None
    assert set(all_settings()) >= {f"tls.{name}" for name in TLSSettings.model_fields}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"certificate": "none.pem"},
            "tls.certificate: the certificate {folder}/none.pem cannot be read: No such file",
        ),
        (
            {"key": "none.key"},
            "tls.key: the private key {folder}/none.key cannot be read: No such file or directory",
        ),
        ({"key": None}, "tls.certificate: there is no private key in {server}"),
        ({"key": "{other}"}, "tls.key: the private key {other} does not belong to the certificate {server}"),
        ({"key": "{encrypted}"}, "is encrypted, and no password was given for it"),
        (
            {"key": "{encrypted}", "key_password_file": "wrong"},
            "tls.key_password_file: the password does not open the",
        ),
        (
            {"key_password_file": "none"},
            "tls.key_password_file: the password file {folder}/none cannot be read",
        ),
        (
            {"ca_files": ["none.pem"]},
            "tls.ca_files: the file of trusted certificates {folder}/none.pem cannot be read",
        ),
        (
            {"ca_directories": ["none"]},
            "tls.ca_directories: the directory of trusted certificates {folder}/none",
        ),
        (
            {"ca_directories": ["damaged"]},
            "tls.ca_directories: there is no certificate in {folder}/damaged/0123abcd.0",
        ),
        ({"crl_files": ["none.crl"]}, "tls.crl_files: the revocation list {folder}/none.crl cannot be read"),
        ({"cipher_suites": ["ROT13"]}, "tls.cipher_suites: the cipher suite ROT13 is not known"),
        ({"dh_parameters": "wrong"}, "tls.dh_parameters: there are no DH parameters in {folder}/wrong"),
        ({"profile": "aes", "minimum_version": "1.3"}, "tls.minimum_version: TLS 1.3 is not to be had"),
        ({"format": "der"}, "(it looks like PEM, not DER)"),
        ({"ca_files": "one"}, 'tls.ca_files: "one" is no list'),
    ],
)
def test_what_is_wrong_is_told_by_the_setting_and_the_file(
    tls_files: TLSFiles, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    (tmp_path / "wrong").write_text("wrong\n")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "0123abcd.0").touch()
    names = {
        "folder": str(tmp_path),
        "server": tls_files.server.certificate,
        "other": tls_files.keys.new("ec"),
        "encrypted": tls_files.server.encrypted(tmp_path, PASSWORD).key,
    }
    filled = {
        name: value.format(**names) if isinstance(value, str) else value for name, value in changes.items()
    }
    said = problem(tmp_path, toml(tls_files, **filled))
    assert words.format(**names) in said
    assert PASSWORD not in said


@pytest.mark.skipif("basic" in available_profiles(), reason="this OpenSSL has 3DES")
def test_a_profile_that_cannot_be_had_is_told_with_those_that_can(
    tls_files: TLSFiles, tmp_path: Path
) -> None:
    said = problem(tmp_path, toml(tls_files, profile="basic"))
    assert said.startswith("tls.profile: the security profile basic cannot be had with OpenSSL")
    assert "Choose one of: rfc8996, " in said


def test_what_is_unwise_is_warned_of(tls_files: TLSFiles, tmp_path: Path) -> None:
    careless = load(
        tmp_path, toml(tls_files, ca_files=None, peer_certificate="ignore", profile="unencrypted")
    )
    assert [warning.partition(" = ")[0] for warning in warnings_of(careless)] == [
        "nothing is encrypted with tls.profile",
        "peers show no certificate with tls.peer_certificate",
    ]
    assert not list(warnings_of(load(tmp_path, toml(tls_files))))
    assert not list(warnings_of(load(tmp_path, toml(tls_files, peer_names="ignore"))))
    anybody = toml(tls_files, ca_files=None, peer_certificate="ignore", peer_names="ignore")
    assert "can stand in for a peer that is called" in next(iter(warnings_of(load(tmp_path, anybody))))


def test_check_config_looks_into_the_files(
    tls_files: TLSFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site.toml").write_text(toml(tls_files, tls_files.expired))
    assert run(["check-config", "--config", str(tmp_path / "site.toml")]) == ExitCode.OK
    output, errors = capsys.readouterr()
    assert f'certificate = "{tls_files.expired.certificate}"' in output
    assert "it expired on 2020-02-01" in errors
    assert run(["check-config", "--config", str(tmp_path / "site.toml"), "--json"]) == ExitCode.OK
    assert "it expired on 2020-02-01" in capsys.readouterr().out
    (tmp_path / "site.toml").write_text(toml(tls_files, key="none.key"))
    assert run(["check-config", "--config", str(tmp_path / "site.toml")]) == ExitCode.SETTINGS
    assert f"tls.key: the private key {tmp_path}/none.key cannot be read" in capsys.readouterr().err
    assert run(["check-config", "--config", str(tmp_path / "site.toml"), "--json"]) == ExitCode.SETTINGS
    (told,) = json.loads(capsys.readouterr().out)["problems"]
    assert told["place"] == f"{tmp_path}/site.toml: tls.key"


def test_a_variable_takes_lists_of_paths(tls_files: TLSFiles, tmp_path: Path) -> None:
    variables = {
        "STOWKEEPER_TLS__CERTIFICATE": tls_files.server.certificate,
        "STOWKEEPER_TLS__KEY": tls_files.server.key,
        "STOWKEEPER_TLS__CA_FILES": f"{tls_files.authority.certificate}, relative.pem",
    }
    settings = load_settings(None, {}, variables)
    assert settings.tls.ca_files == (tls_files.authority.certificate, str(Path.cwd() / "relative.pem"))


# The server


@pytest.mark.slow
def test_certificates_are_renewed_by_sighup(tls_files: TLSFiles, tmp_path: Path) -> None:
    def subject(port: int) -> Any:
        with TLSPeer(port, peer_context(tls_files.authority.certificate, tls_files.client)) as peer:
            assert peer.associate().kind == 2
            return dict(peer.socket.getpeercert()["subject"][0])["commonName"]  # type: ignore[index]  # it has one

    certificate = tmp_path / "server.pem"
    certificate.write_bytes(Path(tls_files.server.certificate).read_bytes())
    own = Identity(certificate=str(certificate), key=tls_files.server.key)
    with serve_process(tmp_path, settings=toml(tls_files, own)) as server:
        assert subject(server.port) == "server"
        renewed = tls_files.authority.issue("renewed", key_file=own.key)
        certificate.write_bytes(Path(renewed.certificate).read_bytes())
        server.signal(signal.SIGHUP)
        server.wait_for_log("settings read anew")
        assert subject(server.port) == "renewed"
        certificate.write_text("no certificate at all")
        server.signal(signal.SIGHUP)
        server.wait_for_log("the settings were not read anew, the old ones stay")
        server.wait_for_log(f"there is no certificate in {certificate}")
        assert subject(server.port) == "renewed"


@pytest.mark.slow
def test_a_server_does_not_start_with_a_key_that_it_cannot_use(tls_files: TLSFiles, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(toml(tls_files, key=tls_files.keys.new("ec")))
    argv = program(
        "serve",
        "--config",
        str(tmp_path / "site.toml"),
        "--archive",
        str(tmp_path / "archive"),
        "--port",
        "0",
    )
    ended = forked.run(argv, capture_output=True, text=True, timeout=60)
    assert ended.returncode == ExitCode.SETTINGS
    assert "does not belong to the certificate" in ended.stderr
    assert not (tmp_path / "archive").exists()


# The user's side


@pytest.fixture
def server(tls_files: TLSFiles) -> Any:
    options = TLSOptions(
        certificate_file=tls_files.server.certificate,
        key_file=tls_files.server.key,
        ca_files=(tls_files.authority.certificate,),
    )
    handlers = RecordingHandlers()
    with serving(handlers, tls=acceptor_context(options)) as running:
        yield running


@pytest.fixture
def call(server: ServerThread, tls_files: TLSFiles, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Give what runs a command against the server; it returns the exit code and what was printed."""

    def calling(
        command: str, *arguments: str, trusting: bool = True, identity: Identity | None = tls_files.client
    ) -> Any:
        own = ["--tls-certificate", identity.certificate, "--tls-key", identity.key] if identity else []
        trust = ["--tls-ca", tls_files.authority.certificate] if trusting else []
        code = run([command, f"PEER@127.0.0.1:{server.port}", *arguments, *own, *trust])
        return code, *capsys.readouterr()

    return calling


def test_echo_over_tls(call: Callable[..., Any]) -> None:
    code, output, errors = call("echo")
    assert (code, errors) == (ExitCode.OK, "")
    assert " ms over TLSv1.3 TLS_AES_256_GCM_SHA384, after " in output
    code, output, _ = call("echo", "--json")
    assert json.loads(output)["tls"] == "TLSv1.3 TLS_AES_256_GCM_SHA384"


def test_send_over_tls(call: Callable[..., Any], server: ServerThread, tmp_path: Path) -> None:
    write_file(tmp_path / "one.dcm")
    code, output, errors = call("send", str(tmp_path), "--associations", "2")
    assert (code, errors) == (ExitCode.OK, "")
    assert output.startswith("1 instance accepted") or "1 of 1" in output, output
    handlers = server.server.handlers
    assert isinstance(handlers, RecordingHandlers)
    (stored,) = handlers.stores
    assert stored.facts.tls == "TLSv1.3 TLS_AES_256_GCM_SHA384"
    code, _, errors = call("send", str(tmp_path), "--tls-server-name", "archive.example")
    assert code == ExitCode.UNAVAILABLE
    assert "it does not hold for the name that was called" in errors


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ("--tls-ca", "/none.pem"),
            ExitCode.NO_INPUT,
            "the file of trusted certificates /none.pem cannot be read",
        ),
        (("--tls-crl", "/none.crl"), ExitCode.NO_INPUT, "the revocation list /none.crl cannot be read"),
        (("--tls-key-password-file", "/none"), ExitCode.NO_INPUT, "the password file /none cannot be read"),
        (("--tls-format", "der"), ExitCode.NO_INPUT, "(it looks like PEM, not DER)"),
        (("--tls-profile", "rot13"), ExitCode.USAGE, "rot13"),
        (
            ("--tls-server-name", "archive.example"),
            ExitCode.UNAVAILABLE,
            "it does not hold for the name that was called",
        ),
        (
            ("--tls-server-name", ".example"),
            ExitCode.UNAVAILABLE,
            "'.example' is no name that a certificate could hold",
        ),
        (
            ("--tls-profile", "aes"),
            ExitCode.UNAVAILABLE,
            "it refused the handshake: no cipher suite is common",
        ),
        (("--tls-server-name", "archive.example", "--tls-any-name"), ExitCode.OK, ""),
        (("--tls-server-name", "archive.example", "--tls-any-certificate"), ExitCode.OK, ""),
        (("--tls", "--tls-server-name", "localhost"), ExitCode.OK, ""),
    ],
)
def test_options_of_a_call(
    call: Callable[..., Any], arguments: tuple[str, ...], code: ExitCode, words: str
) -> None:
    ended, _, errors = call("echo", *arguments)
    assert (ended, words in errors) == (code, True), errors


def test_authorities_may_lie_in_a_directory(
    call: Callable[..., Any], tls_files: TLSFiles, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(Path(tls_files.authority.certificate).read_bytes())
    openssl("rehash", tmp_path)
    assert call("echo", "--tls-ca", str(tmp_path), trusting=False)[0] == ExitCode.OK


@pytest.mark.slow
def test_without_an_authority_those_of_the_machine_are_trusted(
    call: Callable[..., Any], tls_files: TLSFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, errors = call("echo", trusting=False)
    assert code == ExitCode.UNAVAILABLE
    assert "the authority that issued it is not trusted here" in errors
    monkeypatch.setenv("SSL_CERT_FILE", tls_files.authority.certificate)
    assert call("echo", trusting=False)[0] == ExitCode.OK


def test_a_revoked_server_is_refused(call: Callable[..., Any], tls_files: TLSFiles) -> None:
    assert call("echo", "--tls-crl", tls_files.authority.revocation_list())[0] == ExitCode.OK


def test_a_key_is_of_no_use_without_its_certificate(call: Callable[..., Any], tls_files: TLSFiles) -> None:
    code, _, errors = call("echo", "--tls-key", tls_files.client.key, identity=None)
    assert code == ExitCode.USAGE
    assert "--tls-key is of no use without --tls-certificate" in errors


def test_a_terminal_is_asked_for_the_password(
    call: Callable[..., Any], tls_files: TLSFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = tls_files.client.encrypted(tmp_path, PASSWORD)
    code, _, errors = call("echo", identity=identity)
    assert code == ExitCode.NO_INPUT
    assert "is encrypted, and no password was given for it" in errors
    asked: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(tls_options.getpass, "getpass", lambda prompt: asked.append(prompt) or PASSWORD)
    assert call("echo", identity=identity)[0] == ExitCode.OK
    assert asked == [f"Password of {identity.key}: "]
    monkeypatch.setattr(tls_options.getpass, "getpass", lambda _: "wrong")
    code, _, errors = call("echo", identity=identity)
    assert code == ExitCode.NO_INPUT
    assert "the password does not open the private key" in errors
    (tmp_path / "password").write_text(PASSWORD)
    assert (
        call("echo", "--tls-key-password-file", str(tmp_path / "password"), identity=identity)[0]
        == ExitCode.OK
    )


def test_what_is_unwise_about_our_own_certificate_is_said(
    call: Callable[..., Any], tls_files: TLSFiles
) -> None:
    code, _, errors = call("echo", identity=tls_files.expired)
    assert code == ExitCode.UNAVAILABLE
    assert errors.startswith(
        f"warning: the certificate {tls_files.expired.certificate}: it expired on 2020-02-01"
    )
    assert "it refuses our certificate as expired" in errors
