"""Negotiation profiles of the server: written out or from a file, for everyone or for a peer, read anew by SIGHUP."""

import json
import signal
import struct
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.app.commands import run
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.negotiation_profiles import negotiation_profiles
from stowkeeper.app.setting_sources import all_settings, entry_settings
from stowkeeper.app.settings import (
    Settings,
    SettingsError,
    load_settings,
    plain_value,
    reload_settings,
    warnings_of,
)
from stowkeeper.app.wiring import storage_rules
from stowkeeper.dcmtk.shipped_profiles import SHIPPED_PROFILE_FILE
from stowkeeper.dicom.transfer_syntaxes import SHIPPED_TRANSFER_SYNTAXES
from support.archive_server import ArchiveServer, archive_serving
from support.instances import make_instance
from support.raw_peer import (
    CT_IMAGE_STORAGE,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
    Context,
    RawPeer,
    item,
)
from support.server_process import serve_process

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
BIG_ENDIAN = "1.2.840.10008.1.2.2"

WRITTEN_OUT = """
[[profiles]]
name = "radiology"
[[profiles.contexts]]
abstract_syntaxes = ["CTImageStorage"]
transfer_syntaxes = ["JPEGLosslessSV1", "ExplicitVRLittleEndian"]
roles = "both"
[[profiles.contexts]]
abstract_syntaxes = ["1.2.840.10008.5.1.4.1.1.4"]
transfer_syntaxes = ["1.2.840.10008.1.2"]
"""
FROM_A_FILE = """
[[profiles]]
name = "from a file"
file = "site.cfg"
file_profile = "Mine"
"""
ASCONFIG = """\
[[TransferSyntaxes]]
[Images]
TransferSyntax1 = JPEGLossless:Non-hierarchical-1stOrderPrediction
TransferSyntax2 = LittleEndianExplicit
[Big]
TransferSyntax1 = BigEndianExplicit
[[PresentationContexts]]
[All]
PresentationContext1 = CTImageStorage\\Images
PresentationContext2 = MRImageStorage\\Big
PresentationContext3 = VerificationSOPClass\\Big
PresentationContext4 = FINDStudyRootQueryRetrieveInformationModel\\Big
[[SCPSCURoleSelection]]
[Roles]
Role1 = CTImageStorage\\BOTH
Role2 = MRImageStorage\\SCP
Role3 = VerificationSOPClass\\SCP
[[ExtendedNegotiation]]
[Bytes]
ExtendedNegotiation1 = CTImageStorage\\0102030405
[[Profiles]]
[Mine]
PresentationContexts = All
SCPSCURoleSelection = Roles
ExtendedNegotiation = Bytes
"""


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(toml: str) -> Settings:
    Path("site.toml").write_text(toml, encoding="utf-8")
    return load_settings("site.toml", {}, {})


def problems(toml: str) -> list[str]:
    """Return what is wrong with settings and the files they name, without the folder."""
    with pytest.raises(SettingsError) as caught:
        negotiation_profiles(load(toml))
    return [str(problem).replace(f"{Path.cwd()}/", "") for problem in caught.value.problems]


@contextmanager
def served(toml: str) -> Iterator[ArchiveServer]:
    settings = load(toml)
    with archive_serving(
        Path("archive"), rules=storage_rules(settings, negotiation_profiles(settings))
    ) as server:
        yield server


def context(number: int, abstract_syntax: str, *transfer_syntaxes: str) -> Context:
    return Context(context_id=number, abstract_syntax=abstract_syntax, transfer_syntaxes=transfer_syntaxes)


def role(uid: str, *, scu: bool, scp: bool) -> bytes:
    """Encode a role selection sub-item (PS3.7 §D.3.3.4)."""
    return item(0x54, struct.pack(">H", len(uid)) + uid.encode() + bytes((scu, scp)))


def extended(uid: str) -> bytes:
    """Encode an SOP class extended negotiation sub-item (PS3.7 §D.3.3.5)."""
    return item(0x56, struct.pack(">H", len(uid)) + uid.encode() + bytes(6))


def in_default(toml: str, name: str) -> str:
    return f'[negotiation]\nprofile = "{name}"\n{toml}'


# What it does to associations.


def test_a_profile_in_the_settings_decides(tmp_path: Path) -> None:
    with served(in_default(WRITTEN_OUT, "radiology")) as server, RawPeer(server.port) as peer:
        peer.associate(
            context(1, CT_IMAGE_STORAGE, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, JPEG_LOSSLESS),
            context(3, MR_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN),
            context(5, "1.2.840.10008.5.1.4.1.1.7", EXPLICIT_VR_LITTLE_ENDIAN),
            context(7, VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN),
            user_items=role(CT_IMAGE_STORAGE, scu=True, scp=True),
        )
        assert peer.results == {1: 0, 3: 4, 5: 3, 7: 0}
        assert peer.accepted[1] == EXPLICIT_VR_LITTLE_ENDIAN, "the first acceptable one as proposed"
        assert peer.user_information[0x54][-2:] == b"\1\1"
        kept = make_instance(1)
        assert peer.store(kept.sop_instance_uid, kept.data).status == 0
        # Within a context that was accepted only classes of the profile are stored.
        other = make_instance(2, sop_class_uid="1.2.840.10008.5.1.4.1.1.7")
        answer = peer.store(other.sop_instance_uid, other.data, sop_class_uid=other.sop_class_uid)
        assert answer.status == 0x0122
        assert peer.echo(context_id=7).status == 0


def test_with_a_preference_the_order_of_the_profile_counts() -> None:
    toml = WRITTEN_OUT.replace('name = "radiology"', 'name = "radiology"\nchoice = "preference"')
    with served(in_default(toml, "radiology")) as server, RawPeer(server.port) as peer:
        peer.associate(context(1, CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN, JPEG_LOSSLESS))
        assert peer.accepted == {1: JPEG_LOSSLESS}


def test_a_profile_of_a_file_decides_in_its_own_order_and_echo_works_all_the_same() -> None:
    Path("site.cfg").write_text(ASCONFIG, encoding="ascii")
    with served(in_default(FROM_A_FILE, "from a file")) as server, RawPeer(server.port) as peer:
        peer.associate(
            context(1, CT_IMAGE_STORAGE, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, JPEG_LOSSLESS),
            context(3, MR_IMAGE_STORAGE, BIG_ENDIAN),
            context(5, VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN),
            context(7, FIND, BIG_ENDIAN),
            user_items=role(CT_IMAGE_STORAGE, scu=False, scp=True) + extended(CT_IMAGE_STORAGE),
        )
        assert peer.results == {1: 0, 3: 2, 5: 0, 7: 0}, "who would have no role is refused"
        assert peer.accepted[1] == JPEG_LOSSLESS
        assert peer.user_information[0x54][-2:] == b"\0\1"
        assert peer.user_information[0x56].endswith(CT_IMAGE_STORAGE.encode() + b"\1\2\3\4\5")
        assert peer.echo(context_id=5).status == 0


def test_where_the_profile_says_nothing_storage_is_answered_as_level_2() -> None:
    with served(in_default(WRITTEN_OUT, "radiology")) as server, RawPeer(server.port) as peer:
        peer.associate(
            context(1, CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN), user_items=extended(CT_IMAGE_STORAGE)
        )
        assert peer.user_information[0x56].endswith(bytes((2, 0, 3, 0, 0, 0)))


def test_the_shipped_file_takes_every_class_that_it_names() -> None:
    toml = f'[[profiles]]\nname = "AllDICOM"\nfile = {json.dumps(str(SHIPPED_PROFILE_FILE))}\n'
    assert negotiation_profiles(load(toml)).warnings == ()
    with served(in_default(toml, "AllDICOM")) as server, RawPeer(server.port) as peer:
        peer.associate(
            context(1, CT_IMAGE_STORAGE, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN),
            context(3, "1.2.3.4", EXPLICIT_VR_LITTLE_ENDIAN),
        )
        assert peer.results == {1: 0, 3: 3}
        assert peer.accepted[1] == EXPLICIT_VR_LITTLE_ENDIAN


PEERS = """
[[peers]]
name = "MR 1"
ae_title = "MR1"
profile = "radiology"
[[peers]]
name = "CT 1"
ae_title = "CT1"
"""


@pytest.mark.parametrize(
    ("calling", "default", "results"),
    [
        (b"MR1", "", {1: 3, 3: 0}),
        (b"CT1", "", {1: 0, 3: 0}),
        (b"CT1", "from a file", {1: 3, 3: 4}),
        (b"MR1", "from a file", {1: 3, 3: 0}),
    ],
)
def test_a_peer_may_have_a_profile_of_its_own(calling: bytes, default: str, results: dict[int, int]) -> None:
    Path("site.cfg").write_text(ASCONFIG, encoding="ascii")
    toml = in_default(WRITTEN_OUT + FROM_A_FILE + PEERS, default)
    with served(toml) as server, RawPeer(server.port) as peer:
        peer.associate(
            context(1, "1.2.840.10008.5.1.4.1.1.7", IMPLICIT_VR_LITTLE_ENDIAN),
            context(3, MR_IMAGE_STORAGE, IMPLICIT_VR_LITTLE_ENDIAN),
            calling=calling,
        )
        assert peer.results == results


def test_a_profile_takes_the_place_of_the_other_keys() -> None:
    keys = 'accept_unknown_transfer_syntaxes = true\nrefused_abstract_syntaxes = ["CTImageStorage"]\n'
    toml = f'[negotiation]\nprofile = "radiology"\n{keys}{WRITTEN_OUT}'
    assert list(warnings_of(load(toml))) == [
        'negotiation.refused_abstract_syntaxes has no effect with negotiation.profile = "radiology"',
        'negotiation.accept_unknown_transfer_syntaxes has no effect with negotiation.profile = "radiology"',
    ]
    with served(toml) as server, RawPeer(server.port) as peer:
        peer.associate(
            context(1, CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN), context(3, CT_IMAGE_STORAGE, "1.2.3.4")
        )
        assert peer.results == {1: 0, 3: 4}


def test_verification_is_accepted_in_every_syntax_of_the_server() -> None:
    Path("site.cfg").write_text(ASCONFIG, encoding="ascii")
    profiles = negotiation_profiles(load(FROM_A_FILE + WRITTEN_OUT))
    of_file = profiles.policies["from a file"].transfer_syntaxes[VERIFICATION]
    assert of_file[0] == BIG_ENDIAN, "what the profile says comes first"
    assert set(of_file) == set(SHIPPED_TRANSFER_SYNTAXES)
    assert VERIFICATION not in profiles.policies["from a file"].roles
    written_out = profiles.policies["radiology"]
    assert set(written_out.transfer_syntaxes) == {VERIFICATION, CT_IMAGE_STORAGE, MR_IMAGE_STORAGE}
    assert written_out.accepts(VERIFICATION)
    assert profiles.warnings == (
        f'profile "from a file" accepts {FIND}, known to be no storage: of such a service no operation is performed',
    )


@pytest.mark.slow
def test_profiles_and_their_files_are_read_anew_by_sighup(tmp_path: Path) -> None:
    def chosen(port: int) -> dict[int, str]:
        with RawPeer(port) as peer:
            peer.associate(context(1, CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN, JPEG_LOSSLESS))
            return peer.accepted

    file, toml = tmp_path / "site.cfg", tmp_path / "stowkeeper.toml"
    file.write_text(ASCONFIG + "[Second]\nNonsense = 1\nPresentationContexts = All\n", encoding="ascii")
    settings = in_default(FROM_A_FILE, "from a file")
    with serve_process(tmp_path, settings=settings) as server:
        server.wait_for_log("has no effect: a profile has no such entry")
        server.wait_for_log("known to be no storage")
        assert chosen(server.port) == {1: JPEG_LOSSLESS}
        file.write_text(ASCONFIG.replace("JPEGLossless:Non-hierarchical-1stOrderPrediction", "RLELossless"))
        server.signal(signal.SIGHUP)
        server.wait_for_log("settings read anew")
        assert chosen(server.port) == {1: EXPLICIT_VR_LITTLE_ENDIAN}
        file.write_text(ASCONFIG.replace("TransferSyntax2 = Little", "TransferSyntax2 = Lttle"))
        server.signal(signal.SIGHUP)
        server.wait_for_log("the settings were not read anew, the old ones stay")
        server.wait_for_log(f"{file}, line 4: [[TRANSFERSYNTAXES]] [IMAGES]")
        assert chosen(server.port) == {1: EXPLICIT_VR_LITTLE_ENDIAN}
        toml.write_text(in_default(WRITTEN_OUT, "radiology").replace("CTImageStorage", "1.2.3"))
        server.signal(signal.SIGHUP)
        server.wait_for_log("negotiation.profile")
        assert chosen(server.port) == {}


# The settings.


def test_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "site.toml").write_text(FROM_A_FILE, encoding="utf-8")
    settings = load_settings(str(tmp_path / "etc" / "site.toml"), {}, {})
    assert settings.profiles[0].file == str(tmp_path / "etc" / "site.cfg")
    variables = {"STOWKEEPER_PROFILES": '[{"name": "a", "file": "~/a.cfg"}]'}
    assert load_settings(None, {}, variables).profiles[0].file == str(Path("~/a.cfg").expanduser())


def test_a_profile_in_a_file_is_looked_for_by_its_own_name_where_no_other_is_given() -> None:
    Path("site.cfg").write_text(ASCONFIG, encoding="ascii")
    toml = '[[profiles]]\nname = "mine"\nfile = "site.cfg"\n'
    assert CT_IMAGE_STORAGE in negotiation_profiles(load(toml)).policies["mine"].transfer_syntaxes


ENTRY = "[[profiles]]\nname = 'a'\n"
CONTEXT = (
    "[[profiles.contexts]]\nabstract_syntaxes = ['CTImageStorage']\ntransfer_syntaxes = ['RLELossless']\n"
)


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        (ENTRY, "site.toml: profiles, entry 1: a profile needs [[profiles.contexts]] below it, or a file"),
        (ENTRY + "file = 'x.cfg'\n" + CONTEXT, "site.toml: profiles, entry 1: a profile has contexts or a file, not both: leave one of them"),
        (ENTRY + "file = 'x.cfg'\nchoice = 'preference'", "site.toml: profiles, entry 1: choice is for contexts: in a profile of a file the file's order counts"),
        (ENTRY + "file_profile = 'x'\n" + CONTEXT, "site.toml: profiles, entry 1: file_profile is a name in a file: give the file too"),
        (ENTRY + CONTEXT + CONTEXT, "site.toml: profiles, entry 1: it has the abstract syntax 1.2.840.10008.5.1.4.1.1.2 twice: leave one of them"),
        (ENTRY + CONTEXT + ENTRY + CONTEXT, 'site.toml: profiles: several profiles have the name "a"'),
        (ENTRY + CONTEXT + CONTEXT.replace("CTImage", "CTImge"), 'site.toml: profiles, entry 1: contexts, entry 2: abstract_syntaxes: "CTImgeStorage" is neither a UID nor a known keyword; did you mean "CTImageStorage"? allowed: a list of SOP class UIDs or keywords, at least one'),
        (ENTRY + CONTEXT.replace("'RLELossless'", ""), "site.toml: profiles, entry 1: contexts, entry 1: transfer_syntaxes: [] is not allowed; allowed: a list of transfer syntax UIDs or keywords, at least one"),
        (ENTRY + CONTEXT + "rols = 'scu'", "site.toml: profiles, entry 1: contexts, entry 1: rols: there is no such setting; did you mean roles?"),
        (ENTRY + CONTEXT + "xyz = 'scu'", "site.toml: profiles, entry 1: contexts, entry 1: xyz: there is no such setting; [[profiles.contexts]] has abstract_syntaxes, transfer_syntaxes, roles"),
        (ENTRY + CONTEXT + "roles = 'SCU'", 'site.toml: profiles, entry 1: contexts, entry 1: roles: "SCU" is not allowed; allowed: "scu", "scp", "both"'),
        (ENTRY + "contexts = 5", "site.toml: profiles, entry 1: contexts: 5 is no list; allowed: tables"),
        (ENTRY + "contexts = [5]", "site.toml: profiles, entry 1: contexts, entry 1: it must be a table"),
        (ENTRY + "file = 5", "site.toml: profiles, entry 1: file: 5 is not allowed; allowed: a path"),
        ("profiles = [5]", "site.toml: profiles, entry 1: it must be a table"),
        ("[profiles]\nname = 'a'", 'site.toml: profiles: {"name": "a"} is no list; allowed: tables'),
        ("[negotiation]\nprofile = 'b'\n" + ENTRY + CONTEXT, 'site.toml: negotiation.profile: there is no profile "b"; [[profiles]] has a'),
        ("[negotiation]\nprofile = 'b'\n", 'site.toml: negotiation.profile: there is no profile "b"; add it as a [[profiles]] entry'),
        ("[[peers]]\nname = 'a'\nae_title = 'A'\n[[peers]]\nname = 'b'\nae_title = 'B'\nprofile = 'x'", 'site.toml: peers, entry 2: profile: there is no profile "x"; add it as a [[profiles]] entry'),
        (ENTRY + "file = 'none.cfg'", "site.toml: profiles, entry 1: file: none.cfg: cannot be read: No such file or directory"),
        (ENTRY + "file = 'site.cfg'\nfile_profile = 'Others'", "site.toml: profiles, entry 1: file: site.cfg: there is no profile 'Others'; the file has MINE"),
        (ENTRY + CONTEXT + "[[profiles]]\nname = 'b'\nfile = 'bad.cfg'", "site.toml: profiles, entry 2: file: bad.cfg, line 9: [[PRESENTATIONCONTEXTS]] [ALL] PRESENTATIONCONTEXT1: 'CTImgStorage' is not an abstract syntax: write its UID or name, no blank before the backslash"),
    ],
)  # fmt: skip
def test_every_problem_names_its_place_and_what_to_do(toml: str, problem: str) -> None:
    Path("site.cfg").write_text(ASCONFIG, encoding="ascii")
    Path("bad.cfg").write_text(ASCONFIG.replace("1 = CTImage", "1 = CTImg"), encoding="ascii")
    assert problems(toml) == [problem]


def test_all_files_are_looked_at_before_the_problems_are_told() -> None:
    toml = ENTRY + "file = 'none.cfg'\n" + ENTRY.replace("'a'", "'b'") + "file = 'nothing.cfg'\n"
    assert len(problems(toml)) == 2


def test_every_list_of_tables_has_its_keys_described() -> None:
    lists = {key for key, setting in all_settings().items() if setting.shape == "tables"}
    for name, settings in entry_settings().items():
        lists |= {f"{name}.{key}" for key, setting in settings.items() if setting.shape == "tables"}
    assert lists == set(entry_settings())


def test_a_reload_puts_them_in_force() -> None:
    current = load("")
    Path("site.toml").write_text(in_default(WRITTEN_OUT, "radiology"), encoding="utf-8")
    reload = reload_settings(current, "site.toml", {}, {})
    assert {change.key for change in reload.applied} == {"negotiation.profile", "profiles"}
    assert reload.settings.profile_of("ANY", "127.0.0.1") == "radiology"


# `check-config` and `serve`.


def test_check_config_shows_them_as_a_file_that_says_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("site.cfg").write_text(ASCONFIG, encoding="ascii")
    first = load(in_default(WRITTEN_OUT + FROM_A_FILE + PEERS, "radiology"))
    assert run(["check-config", "--config", "site.toml"]) == ExitCode.OK
    output, errors = capsys.readouterr()
    assert "warning: profile" in errors
    shown: list[dict[str, Any]] = tomllib.loads(output)["profiles"]
    assert [entry["name"] for entry in shown] == ["radiology", "from a file"]
    assert [entry["transfer_syntaxes"] for entry in shown[0]["contexts"]][1] == [IMPLICIT_VR_LITTLE_ENDIAN]
    Path("written.toml").write_text(output, encoding="utf-8")
    again = load_settings("written.toml", {}, {})
    for setting in all_settings().values():
        assert plain_value(again, setting) == plain_value(first, setting)


def test_check_config_and_serve_refuse_a_wrong_file(capsys: pytest.CaptureFixture[str]) -> None:
    load(ENTRY + "file = 'none.cfg'")
    for command in ("check-config", "serve"):
        assert run([command, "--config", "site.toml"]) == ExitCode.SETTINGS
        output, errors = capsys.readouterr()
        assert output == ""
        assert "profiles, entry 1: file: " in errors
    assert not Path("archive").exists(), "nothing is made before the settings are right"
