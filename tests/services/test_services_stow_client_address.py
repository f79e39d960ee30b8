"""The STOW-RS client: where it posts, as whom, and what it writes down to go on later."""

import json
import os
from pathlib import Path

import pytest

from stowkeeper.services.send_plan import read_sendable
from stowkeeper.services.stow_client.address import AddressError, read_address
from stowkeeper.services.stow_client.credentials import (
    CredentialError,
    ExposedCredentialError,
    basic,
    bearer,
    check_exposure,
    read_secret,
)
from stowkeeper.services.stow_client.journal import Journal, JournalBusyError, JournalError
from support.scripted_dicomweb import Answer, Reply, Request, Script, module, scripted_server, store_all
from support.send_files import write_file
from support.stowing import make_files, stow

SERVICE = "http://host/dicom-web"

# The URL


@pytest.mark.parametrize(
    ("url", "study", "expected"),
    [
        ("http://host/dicom-web", "", "http://host/dicom-web/studies"),
        ("http://host/dicom-web/", "", "http://host/dicom-web/studies"),
        ("http://host/dicom-web/studies", "", "http://host/dicom-web/studies"),
        ("http://host/dicom-web/studies/", "", "http://host/dicom-web/studies"),
        ("http://host", "", "http://host/studies"),
        ("https://HOST:443/x", "", "https://host/x/studies"),
        ("https://host:8443/x", "1.2", "https://host:8443/x/studies/1.2"),
        ("https://host/x/studies/1.2", "", "https://host/x/studies/1.2"),
        ("https://host/x/studies/1.2/", "1.2", "https://host/x/studies/1.2"),
        ("http://[::1]:8042/a/studies?key=1", "", "http://[::1]:8042/a/studies"),
        ("http://host/studies-of-2026", "", "http://host/studies-of-2026/studies"),
    ],
)
def test_a_url_with_and_without_studies_is_the_same_resource(url: str, study: str, expected: str) -> None:
    assert read_address(url, study).url == expected


@pytest.mark.parametrize(
    ("url", "study", "words"),
    [
        ("host/dicom-web", "", "begins with http"),
        ("ftp://host/", "", "begins with http"),
        ("http:///x", "", "begins with http"),
        ("http://host:99999/", "", "malformed"),
        ("http://host:0/", "", "malformed"),
        ("http://[::1/", "", "malformed"),
        ("https://user:secret@host/", "", "--user"),
        ("http://host/a b", "", "%XX"),
        ("http://host/a#b", "", "%XX"),
        ("http://host/studies/1.2", "1.3", "another"),
        ("http://host/", "../../x", "no Study Instance UID"),
        ("http://host/studies/abc", "", "no Study Instance UID"),
    ],
)
def test_a_url_that_cannot_be_posted_to_is_refused(url: str, study: str, words: str) -> None:
    with pytest.raises(AddressError, match=words) as refused:
        read_address(url, study)
    assert "secret" not in str(refused.value)


# Credentials


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://example.org/", True),
        ("http://127.0.0.1:8042/", True),
        ("http://127.8.9.1/", True),
        ("http://[::1]/", True),
        ("http://localhost/", True),
        ("http://example.org/", False),
        ("http://192.0.2.7/", False),
        ("http://127.0.0.1.example.org/", False),
        ("http://localhost.example.org/", False),
    ],
)
def test_a_credential_goes_in_the_clear_to_this_machine_alone(url: str, safe: bool) -> None:
    address = read_address(url)
    credential = bearer("secret")
    check_exposure(credential, address, allowed=True)
    if safe:
        check_exposure(credential, address, allowed=False)
        return
    with pytest.raises(ExposedCredentialError, match="--insecure-http") as refused:
        check_exposure(credential, address, allowed=False)
    assert "secret" not in str(refused.value)


def test_credentials_are_not_shown() -> None:
    assert "secret" not in repr(bearer("secret"))
    assert "secret" not in repr(basic("ann", "secret"))


@pytest.mark.parametrize("token", ["", "  ", "two words", "a\r\nX: y", "é", "x" * 20_000])
def test_a_token_that_is_none_is_refused_without_being_repeated(token: str) -> None:
    with pytest.raises(CredentialError) as refused:
        bearer(token)
    assert not token.strip() or token not in str(refused.value)


def test_a_password_is_sent_in_utf_8(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes("pass:wörd\r\nsecond line\n".encode())
    credential = basic("ann", read_secret(str(tmp_path / "password")))
    with scripted_server() as server:
        stow(make_files(tmp_path / "files", 1), server.url, credential=credential)
    assert server.requests[0].fields["authorization"] == "Basic YW5uOnBhc3M6d8O2cmQ="


@pytest.mark.parametrize(("user", "password"), [("", "x"), ("a:b", "x"), ("a", "x\ny"), ("a\0", "x")])
def test_a_user_that_cannot_be_sent_is_refused(user: str, password: str) -> None:
    with pytest.raises(CredentialError):
        basic(user, password)


def test_a_secret_of_any_length_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 20_000)
    with pytest.raises(CredentialError, match="longer"):
        read_secret(str(tmp_path / "secret"))


# The journal


def test_what_is_stored_is_written_down_and_nothing_else(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    files = make_files(tmp_path / "files", 5)
    body = module("1.2.3.0", warned={"1.2.3.1": 0xB000}, failed={"1.2.3.2": 0x0110})
    with (
        scripted_server(Script(answer=lambda _: Reply(202, body))) as server,
        Journal(path, SERVICE) as journal,
    ):
        stow(files, server.url, journal=journal)
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert lines[0]["service"] == SERVICE
    assert lines[1:] == [
        {
            "path": file.path,
            "size": file.size,
            "mtime_ns": os.stat(file.path).st_mtime_ns,
            "sop_instance_uid": file.sop_instance_uid,
        }
        for file in files[:2]
    ]
    with Journal(path, SERVICE) as again:
        assert [again.has(file) for file in files] == [True, True, False, False, False]
    assert Path(path).read_text().count("\n") == 3


def test_a_file_that_changed_is_another_file(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    files = make_files(tmp_path, 4)
    with Journal(path, SERVICE) as journal:
        for file in files:
            journal.add(file)
    os.utime(files[0].path, ns=(1, 1))
    write_file(Path(files[1].path), 1, pixels=b"other pixels")
    changed = [read_sendable(file.path) for file in files]
    with Journal(path, SERVICE) as journal:
        assert [journal.has(file) for file in changed] == [False, False, True, True]


def test_the_line_that_a_crash_cut_short_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    files = make_files(tmp_path, 3)
    with Journal(str(path), SERVICE) as journal:
        for file in files[:2]:
            journal.add(file)
    path.write_bytes(path.read_bytes()[:-20])
    with Journal(str(path), SERVICE) as journal:
        assert [journal.has(file) for file in files] == [True, False, False]
        journal.add(files[2])
    with Journal(str(path), SERVICE) as journal:
        assert [journal.has(file) for file in files] == [True, False, True]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Dear diary\n", "is no journal"),
        (b"{}\n", "is no journal"),
        (b"[" * 50_000, "is no journal"),
        (
            b'{"format": "stowkeeper stow", "version": 1, "service": "http://other"}\n',
            "not http://host/dicom-web",
        ),
        (
            b'{"format": "stowkeeper stow", "version": 1, "service": "http://host/dicom-web"}\n{"path": 1}\n{}\n',
            "line 2",
        ),
    ],
)
def test_a_file_that_is_no_journal_of_this_service_is_left_alone(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    with pytest.raises(JournalError, match=words), Journal(str(path), SERVICE):
        pass
    assert path.read_bytes() == content


def test_two_runs_do_not_share_a_journal(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    with Journal(path, SERVICE), pytest.raises(JournalBusyError, match="another run"), Journal(path, SERVICE):
        pass
    with Journal(path, SERVICE):
        pass


def test_a_path_of_any_bytes_can_be_written_down(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.dcm")
    write_file(Path(name))
    path = str(tmp_path / "journal")
    with Journal(path, SERVICE) as journal:
        journal.add(read_sendable(name))
    with Journal(path, SERVICE) as journal:
        assert journal.has(read_sendable(name))


def test_a_run_that_was_broken_off_is_gone_on_with(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    files = make_files(tmp_path / "files", 6)

    def answer(request: Request) -> Answer:
        return store_all(request) if request.number < 2 else Reply(403)

    with scripted_server(Script(answer=answer)) as server, Journal(path, SERVICE) as journal:
        stow(files, server.url, instances=2, journal=journal)
    with scripted_server() as server, Journal(path, SERVICE) as journal:
        rest = [file for file in files if not journal.has(file)]
        seen = stow(rest, server.url, journal=journal)
    assert list(seen.results) == ["4", "5"]
    with Journal(path, SERVICE) as journal:
        assert all(journal.has(file) for file in files)
