"""The settings of origin servers: what is refused, what reaches the services, what check-config, doctor and a reload say."""

import datetime as dt
import ssl
from pathlib import Path

import pytest

from stowkeeper.app.commands import run
from stowkeeper.app.doctor.finding import Level
from stowkeeper.app.doctor.origin_servers import check_origin_servers
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.origin_servers import origin_servers
from stowkeeper.app.settings import Settings, SettingsError, load_settings, reload_settings
from stowkeeper.services.origin_servers import OriginServerError, open_destination
from support.tls_fixtures import TLSFiles

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def loaded(folder: Path, *tables: str) -> Settings:
    """Load settings with these tables of origin servers."""
    file = folder / "site.toml"
    file.write_text("\n".join(tables), encoding="utf-8")
    return load_settings(str(file), {}, {})


def server(name: str, url: str, *lines: str) -> str:
    return "\n".join(["[[origin_servers]]", f'name = "{name}"', f'url = "{url}"', *lines])


def test_what_is_set_reaches_the_services(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        server(
            "cloud",
            "https://pacs.example:8443/dicom-web/studies/",
            'token_file = "token"',
            'ca_file = "/etc/ca.pem"',
            'certificate = "ours.pem"',
            'key = "/etc/ours.key"',
            "batch_instances = 7",
            'batch_bytes = "3 MB"',
            "at_once = 3",
            "seconds = 20",
        ),
        server("plain", "http://10.0.0.1/rs"),
        server("named", "http://10.0.0.1/rs", 'user = "us"', 'password_file = "pw"', "insecure_http = true"),
    )
    found = origin_servers(settings)
    assert list(found) == ["cloud", "plain", "named"]
    cloud = found["cloud"]
    assert cloud.address.url == "https://pacs.example:8443/dicom-web/studies"
    assert (cloud.token_file, cloud.ca_file) == (str(tmp_path / "token"), "/etc/ca.pem")
    assert (cloud.certificate, cloud.key) == (str(tmp_path / "ours.pem"), "/etc/ours.key")
    assert (cloud.instances, cloud.bytes_max, cloud.parallel, cloud.seconds) == (7, 3_000_000, 3, 20)
    assert (cloud.lane, found["plain"].instances, found["plain"].parallel) == ("web:cloud", 20, 2)
    assert (found["named"].user, found["named"].is_exposure_allowed) == ("us", True)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([server("a", "ftp://x/")], "url: the URL begins with http:// or https:// and a host"),
        ([server("a", "https://us:pw@x/")], "url: the URL holds a user or a password"),
        ([server("a", "https://x/rs?key=1")], "url has a query, which everyone sees"),
        ([server("a", "https://x/studies/1.2.3")], "url names a study"),
        (
            [server("a", "https://x", 'token_file="t"', 'user="u"', 'password_file="p"')],
            "are two credentials",
        ),
        ([server("a", "https://x", 'user="u"')], "user and password_file are of no use without each other"),
        (
            [server("a", "https://x", 'password_file="p"')],
            "user and password_file are of no use without each",
        ),
        (
            [server("a", "https://x", 'user="u:v"', 'password_file="p"')],
            "user: a user has a name, and no colon",
        ),
        ([server("a", "http://x", 'token_file="t"')], "the credential could be read on the way"),
        ([server("a", "http://x", 'ca_file="c"')], "ca_file is of no use to a url with http://"),
        ([server("a", "http://x", 'certificate="c"')], "certificate is of no use to a url with http://"),
        ([server("a", "https://x", 'key="k"')], "key is of no use without certificate"),
        ([server("a", "http://x", "batch_instances = 0")], "batch_instances: 0 is not allowed"),
        ([server("a", "http://x"), server("a", "http://y")], 'several origin servers have the name "a"'),
        (
            [server("a", "http://x"), '[[peers]]\nname = "a"\nae_title = "A"'],
            'an origin server and a peer have the name "a": rules could mean either',
        ),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, *lines)
    assert words in str(caught.value)
    assert "pw" not in str(caught.value)


def test_a_token_goes_to_this_machine_without_tls(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\nanother line\n")
    settings = loaded(tmp_path, server("a", "http://127.0.0.1:1/rs", 'token_file = "token"'))
    destination = open_destination(origin_servers(settings)["a"])
    assert destination.credential is not None
    assert destination.credential.value == "Bearer abc"
    assert "abc" not in repr(destination)
    assert destination.context is None


def test_https_is_checked_unless_nobody_says_otherwise(tmp_path: Path) -> None:
    settings = loaded(tmp_path, server("a", "https://localhost/rs"))
    destination = open_destination(origin_servers(settings)["a"])
    assert destination.context is not None
    assert destination.context.verify_mode is ssl.CERT_REQUIRED
    assert destination.context.check_hostname


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "token_file: {} cannot be used: the token is empty"),
        ("a b\n", "cannot be used: that is no bearer"),
    ],
)
def test_a_token_that_is_none_is_said_without_repeating_it(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    settings = loaded(tmp_path, server("a", "https://x", 'token_file = "token"'))
    with pytest.raises(OriginServerError) as caught:
        open_destination(origin_servers(settings)["a"])
    assert words.format(path) in str(caught.value)
    assert "a b" not in str(caught.value)


@pytest.mark.slow
def test_files_that_cannot_be_used_end_no_start_and_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    (tmp_path / "token").write_text("abc")
    (tmp_path / "token").chmod(0o644)
    settings = loaded(
        tmp_path,
        server("gone", "https://x", 'token_file = "none"'),
        server("untrusted", "https://x", 'ca_file = "ca.pem"'),
        server("bare", "https://x", 'certificate = "bare.pem"', 'key = "bare.key"'),
        server("open", "https://x", 'token_file = "token"'),
        server("well", "https://x"),
    )
    found = {one.words.partition(":")[0]: one for one in check_origin_servers(settings, NOW)}
    assert {name: one.level for name, one in found.items()} == {
        "gone": Level.WARNING,
        "untrusted": Level.WARNING,
        "bare": Level.WARNING,
        "open": Level.WARNING,
        "well": Level.OK,
    }
    assert str(tmp_path / "none") in found["gone"].mend
    assert str(tmp_path / "ca.pem") in found["untrusted"].mend
    assert "certificate: the certificate" in found["bare"].words
    assert str(tmp_path / "bare.pem") in found["bare"].mend
    assert found["open"].mend == f"chmod o-rwx {tmp_path / 'token'}"
    assert run(["check-config", "--config", str(tmp_path / "site.toml")]) == ExitCode.OK
    output, errors = capsys.readouterr()
    assert output.count("[[origin_servers]]") == 5
    told = [line for line in errors.splitlines() if "origin server" in line]
    assert len(told) == 3
    assert told[0].startswith('warning: jobs wait that send to the origin server "gone": token_file: ')
    assert "abc" not in output + errors


@pytest.mark.slow
@pytest.mark.peer("openssl")
def test_the_days_of_our_certificate_are_looked_at(tmp_path: Path, tls_files: TLSFiles) -> None:
    Path(tls_files.client.key).chmod(0o600)
    for identity, level, words in (
        (tls_files.client, Level.OK, "holds until"),
        (tls_files.expired, Level.FAILURE, "expired on"),
    ):
        lines = [f'certificate = "{identity.certificate}"', f'key = "{identity.key}"']
        found = list(check_origin_servers(loaded(tmp_path, server("a", "https://x", *lines)), NOW))
        assert [one.check for one in found] == ["certificate", "origin server"]
        assert (found[0].level, words in found[0].words) == (level, True)
        assert "kill" not in found[0].mend


def test_a_reload_puts_them_in_force(tmp_path: Path) -> None:
    before = loaded(tmp_path, server("a", "https://x"))
    (tmp_path / "site.toml").write_text(server("b", "https://y"))
    found = reload_settings(before, str(tmp_path / "site.toml"), {}, {})
    assert [change.key for change in found.applied] == ["origin_servers"]
    assert found.needs_restart == ()
    assert list(origin_servers(found.settings)) == ["b"]
