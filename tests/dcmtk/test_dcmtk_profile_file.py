"""Loading of profile files: what a profile becomes, every mistake with its place, and what has no effect."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk import limits
from stowkeeper.dcmtk.profile_file import ProfileContext, ProfileError, load_profiles, read_profile_file
from stowkeeper.dcmtk.profile_names import UIDS_BY_NAME
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.upperlayer.items import Roles

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"

GOOD = r"""
[[TransferSyntaxes]]
[U]
TransferSyntax1 = LittleEndianExplicit
TransferSyntax2 = 1.2.840.10008.1.2
[[PresentationContexts]]
[C]
PresentationContext1 = CTImageStorage\U
PresentationContext2 = 1.2.840.10008.5.1.4.1.1.4\u
[[SCPSCURoleSelection]]
[R]
Role1 = CTImageStorage\SCU
[[ExtendedNegotiation]]
[E]
ExtendedNegotiation1 = MRImageStorage\020aFF
[[Profiles]]
[First]
PresentationContexts = C
SCPSCURoleSelection = R
ExtendedNegotiation = E
[Second]
PresentationContexts = c
"""


def load(text=GOOD, **more):
    return load_profiles(text.encode("latin-1"), "my.cfg", **more)


def changed(old, new):
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def profile(text=GOOD, name="first"):
    return load(text).acceptor_profile(name)


def mistake(text, name="first"):
    with pytest.raises(ProfileError) as caught:
        load(text).acceptor_profile(name)
    return str(caught.value)


def test_a_profile_has_contexts_roles_and_application_information():
    first = profile()
    assert first.name == "FIRST"
    assert first.contexts == (
        ProfileContext(abstract_syntax=CT, transfer_syntaxes=(EXPLICIT, IMPLICIT)),
        ProfileContext(abstract_syntax=MR, transfer_syntaxes=(EXPLICIT, IMPLICIT)),
    )
    assert first.roles == {CT: Roles(scu=True, scp=False)}
    assert first.application_information == {MR: b"\x02\x0a\xff"}
    assert first.transfer_syntaxes_by_abstract_syntax() == {
        CT: (EXPLICIT, IMPLICIT),
        MR: (EXPLICIT, IMPLICIT),
    }
    second = profile(name="second")
    assert (second.contexts, second.roles, second.application_information) == (first.contexts, {}, {})
    assert load().warnings == ()


@pytest.mark.parametrize("name", ["first", "FIRST", " fi rst\t", "\nFirst"])
def test_case_and_white_space_of_a_profile_name_do_not_matter(name):
    assert profile(name=name).name == "FIRST"


@pytest.mark.parametrize("reference", ["c", " C", "C ", "C \n ", "\x0bC"])
def test_case_and_white_space_of_a_reference_do_not_matter(reference):
    text = changed("PresentationContexts = C\n", f"PresentationContexts = {reference}\n")
    assert len(profile(text).contexts) == 2


@pytest.mark.parametrize(
    ("value", "uid"),
    [
        ("=LittleEndianImplicit", IMPLICIT),
        ("1..2.", "1..2."),
        ("BigEndianExplicit", BIG),
        ("JPEGLossless:Non-hierarchical-1stOrderPrediction", "1.2.840.10008.1.2.4.70"),
        ("MPEG4HighProfile/Level4.2For2DVideo", "1.2.840.10008.1.2.4.104"),
    ],
)
def test_values_of_transfer_syntaxes(value, uid):
    assert profile(changed("1.2.840.10008.1.2\n", f"{value}\n")).contexts[0].transfer_syntaxes == (
        EXPLICIT,
        uid,
    )


@pytest.mark.parametrize(("byte_order", "syntaxes"), [("little", (EXPLICIT, BIG)), ("big", (BIG, EXPLICIT))])
def test_two_names_depend_on_the_byte_order(byte_order, syntaxes):
    text = changed("LittleEndianExplicit", "LocalEndianExplicit")
    text = text.replace("= 1.2.840.10008.1.2\n", "= OppositeEndianExplicit\n")
    loaded = load(text, byte_order=byte_order).acceptor_profile("first")
    assert loaded.contexts[0].transfer_syntaxes == syntaxes


@pytest.mark.parametrize(
    ("word", "roles"),
    [("scu", (True, False)), ("SCP", (False, True)), ("Both", (True, True))],
)
def test_roles_in_any_case(word, roles):
    assert profile(changed("\\SCU", f"\\{word}")).roles[CT] == Roles(scu=roles[0], scp=roles[1])


def test_the_longest_application_information():
    most = limits.APPLICATION_INFORMATION_BYTES_MAX
    text = changed("020aFF", "ab" * most)
    assert profile(text).application_information[MR] == b"\xab" * most
    assert "1024 bytes are too many: at most 1023" in mistake(changed("020aFF", "ab" * (most + 1)))


MISTAKES = {
    "no transfer syntaxes": ("[[TransferSyntaxes]]", "[[X]]", "my.cfg: there is no [[TRANSFERSYNTAXES]]"),
    "no contexts": ("[[PresentationContexts]]", "[[X]]", "my.cfg: there is no [[PRESENTATIONCONTEXTS]]"),
    "no profiles": ("[[Profiles]]", "[[X]]", "my.cfg: there is no [[PROFILES]]"),
    "unknown transfer syntax": (
        "= LittleEndianExplicit",
        "= LittleEndian",
        "my.cfg, line 4: [[TRANSFERSYNTAXES]] [U] TRANSFERSYNTAX1: 'LittleEndian' is not a transfer syntax",
    ),
    "blank after a transfer syntax": (
        "= LittleEndianExplicit",
        "= LittleEndianExplicit ",
        "'LittleEndianExplicit ' is not a transfer syntax: write its UID or its name, and no blank after it",
    ),
    "blank after a transfer syntax UID": ("= 1.2.840.10008.1.2\n", "= 1.2.840.10008.1.2 \n", "line 5: "),
    "comment after a transfer syntax": (
        "= LittleEndianExplicit",
        "= LittleEndianExplicit # x",
        "# x' is not a",
    ),
    "empty transfer syntax": ("= LittleEndianExplicit", "=", "'' is not a transfer syntax"),
    "context without backslash": (
        "CTImageStorage\\U",
        "CTImageStorage",
        "line 8: [[PRESENTATIONCONTEXTS]] [C] PRESENTATIONCONTEXT1: there is no backslash in 'CTImageStorage'",
    ),
    "unknown class": ("CTImageStorage\\U", "Verification\\U", "'Verification' is not an abstract syntax"),
    "blank before the backslash": (
        "CTImageStorage\\U",
        "CTImageStorage \\U",
        "no blank before the backslash",
    ),
    "unknown list of syntaxes": (
        "CTImageStorage\\U",
        "CTImageStorage\\V",
        "PRESENTATIONCONTEXT1: the transfer syntax list 'V' is not defined, or has no TransferSyntax1",
    ),
    "empty list of syntaxes": ("TransferSyntax1", "TransferSyntax3", "list 'U' is not defined"),
    "reference to nothing": ("CTImageStorage\\U", "CTImageStorage\\", "list '' is not defined"),
    "reference to a name with a dot": ("CTImageStorage\\U", "CTImageStorage\\U.", "list 'U.' is not defined"),
    "list of contexts without name": (
        "[C]",
        "[.]",
        "line 7: [[PRESENTATIONCONTEXTS]] []: the section has no name",
    ),
    "role without backslash": ("\\SCU", "", "[[SCPSCUROLESELECTION]] [R] ROLE1: there is no backslash"),
    "unknown role": (
        "\\SCU",
        "\\SCX",
        "line 12: [[SCPSCUROLESELECTION]] [R] ROLE1: 'SCX' is not a role: write SCU,",
    ),
    "blank beside a role": ("\\SCU", "\\SCU ", "'SCU ' is not a role"),
    "no role": ("\\SCU", "\\", "'' is not a role"),
    "role for an unknown class": (
        "Role1 = CT",
        "Role1 = QT",
        "ROLE1: 'QTImageStorage' is not an abstract syntax",
    ),
    "role for a class that is not in the profile": (
        "Role1 = CT",
        "Role1 = RT",
        "line 19: [[PROFILES]] [FIRST] SCPSCUROLESELECTION: 1.2.840.10008.5.1.4.1.1.481.1 of the list 'R' is not among",
    ),
    "role for a class twice": (
        "\\SCU",
        f"\\SCU\nRole2 = {CT}\\SCP",
        f"line 13: [[SCPSCUROLESELECTION]] [R] ROLE2: {CT} stands in this list before",
    ),
    "information without backslash": ("\\020aFF", "020aFF", "EXTENDEDNEGOTIATION1: there is no backslash"),
    "odd digits": (
        "020aFF",
        "020aF",
        "line 15: [[EXTENDEDNEGOTIATION]] [E] EXTENDEDNEGOTIATION1: what follows",
    ),
    "no digits": ("020aFF", "", "has to be bytes, two hexadecimal digits each"),
    "other digits": ("020aFF", "02 aFF", "has to be bytes"),
    "information for an unknown class": ("= MRImageStorage", "= XMR", "'XMR' is not an abstract syntax"),
    "information for a class that is not in the profile": (
        "= MRImageStorage",
        "= RTImageStorage",
        "EXTENDEDNEGOTIATION: 1.2.840.10008.5.1.4.1.1.481.1 of the list 'E' is not among",
    ),
    "information for a class twice": (
        "020aFF",
        "020aFF\nExtendedNegotiation2 = MRImageStorage\\00",
        f"EXTENDEDNEGOTIATION2: {MR} stands in this list before",
    ),
    "profile without contexts": (
        "PresentationContexts = c\n",
        "",
        "line 21: [[PROFILES]] [SECOND]: there is no PresentationContexts entry",
    ),
    "unknown list of contexts": (
        "= c\n",
        "= q\n",
        "line 22: [[PROFILES]] [SECOND] PRESENTATIONCONTEXTS: the context list 'q'",
    ),
    "empty list of contexts": (
        "PresentationContext1",
        "PresentationContext0",
        "the context list 'C' is not defined",
    ),
    "unknown list of roles": ("= R\n", "= Q\n", "SCPSCUROLESELECTION: the list 'Q' is not defined"),
    "empty list of roles": ("= R\n", "=\n", "SCPSCUROLESELECTION: the list '' is not defined"),
    "unknown list of information": ("= E\n", "= Q\n", "EXTENDEDNEGOTIATION: the list 'Q' is not defined"),
    "two profiles of a name": (
        "[Second]",
        "[FIRST]",
        "line 21: [[PROFILES]] [FIRST]: a second profile of this name",
    ),
}


@pytest.mark.parametrize(("old", "new", "words"), MISTAKES.values(), ids=MISTAKES)
def test_every_mistake_is_told_with_its_place(old, new, words):
    text = mistake(changed(old, new), "second")
    assert words in text
    assert text.startswith("my.cfg")


def test_an_unknown_profile_is_told_with_those_there_are():
    assert mistake(GOOD, "fist") == "my.cfg: there is no profile 'fist'; the file has FIRST, SECOND"
    assert "the file has none" in mistake(GOOD.partition("[First]")[0])


@pytest.mark.parametrize("again", ["CTImageStorage", CT])
def test_a_class_twice_is_a_mistake_only_of_the_profile_that_is_taken(again):
    text = GOOD.replace("1.2.840.10008.5.1.4.1.1.4\\u", f"{again}\\u").replace("MRImage", "CTImage")
    assert mistake(text) == (
        f"my.cfg: profile FIRST is not valid for an SCP: it has {CT} in more than one presentation context;"
        " leave one of them"
    )
    assert len(load(text).profiles) == 2


def test_sections_of_one_name_are_one_list():
    text = changed(
        "[[PresentationContexts]]", "[u]\nTransferSyntax1 = BigEndianExplicit\n[[PresentationContexts]]"
    )
    assert profile(text).contexts[0].transfer_syntaxes == (EXPLICIT, IMPLICIT, BIG)


def test_roles_and_information_are_not_required():
    text = GOOD.partition("[[SCPSCU")[0] + "[[Profiles]]\n[first]\nPresentationContexts = C\n"
    assert profile(text).contexts == profile().contexts


def test_more_than_128_contexts_are_no_mistake():
    contexts = "".join(f"PresentationContext{number} = 1.2.{number}\\U\n" for number in range(3, 300))
    text = changed("[[SCPSCURoleSelection]]", contexts + "[[SCPSCURoleSelection]]")
    assert len(profile(text).contexts) == 299


IGNORED = {
    "a gap": (
        "TransferSyntax2",
        "TransferSyntax3",
        "my.cfg, line 5: [[TRANSFERSYNTAXES]] [U] TRANSFERSYNTAX3: has no effect: TRANSFERSYNTAX2 is missing",
    ),
    "a leading zero": ("TransferSyntax2", "TransferSyntax02", "TRANSFERSYNTAX02: has no effect"),
    "a mistake behind a gap": ("TransferSyntax2 = 1.2.840.10008.1.2\n", "TransferSyntax3 = x\n", "no effect"),
    "an equal key": (
        "[[PresentationContexts]]",
        "TransferSyntax1 = x\n[[PresentationContexts]]",
        "line 6: [[TRANSFERSYNTAXES]] [U] TRANSFERSYNTAX1: has no effect: an entry of this name stands before it",
    ),
    "an unknown key of a profile": (
        "= c\n",
        "= c\nRoles = R\n",
        "line 23: [[PROFILES]] [SECOND] ROLES: has no effect: a",
    ),
    "an equal supersection": (
        "[Second]",
        "[[Profiles]]\n[Second]",
        "line 21: this second [[PROFILES]] is not read",
    ),
}


@pytest.mark.parametrize(("old", "new", "words"), IGNORED.values(), ids=IGNORED)
def test_what_has_no_effect_is_warned_of(old, new, words):
    (warning,) = load(changed(old, new)).warnings
    assert words in warning
    profile(changed(old, new))


def test_a_file_is_read(tmp_path):
    path = tmp_path / "some.cfg"
    path.write_text(GOOD)
    assert read_profile_file(path).acceptor_profile("first") == profile()
    assert read_profile_file(path).name == str(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ProfileError, match=r"absent\.cfg: cannot be read: No such file"):
        read_profile_file(tmp_path / "absent.cfg")
    with pytest.raises(ProfileError, match="cannot be read: Is a directory"):
        read_profile_file(tmp_path)
    with pytest.raises(ProfileError, match="cannot be read: embedded null byte"):
        read_profile_file("a\0b")


def test_a_file_is_not_read_beyond_its_bound(tmp_path, monkeypatch):
    path = tmp_path / "some.cfg"
    path.write_text(GOOD)
    monkeypatch.setattr("stowkeeper.dcmtk.profile_file.PROFILE_FILE_BYTES_MAX", len(GOOD))
    read_profile_file(path)
    monkeypatch.setattr("stowkeeper.dcmtk.profile_file.PROFILE_FILE_BYTES_MAX", len(GOOD) - 1)
    with pytest.raises(ProfileError, match=r"some\.cfg: is longer than \d+ bytes; divide it"):
        read_profile_file(path)


LINES = GOOD.splitlines(keepends=True)
SCRAPS = [
    "[",
    "]",
    "=",
    "\n",
    "\n ",
    "\\",
    "#",
    " ",
    "\0",
    "U",
    "1",
    "SCP",
    "Role2 = 1.2\\SCU\n",
    "[[Profiles]]\n",
]


@pytest.mark.slow
@given(st.data())
def test_a_damaged_file_loads_or_names_its_mistake(data):
    lines = list(LINES)
    for _ in range(data.draw(st.integers(0, 3))):
        one = data.draw(st.integers(0, len(lines) - 1))
        lines.insert(data.draw(st.integers(0, len(lines))), lines.pop(one))
    text = "".join(lines)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(text)))
        gone = data.draw(st.integers(0, 3))
        text = (
            text[:at] + "".join(data.draw(st.lists(st.sampled_from(SCRAPS), max_size=2))) + text[at + gone :]
        )
    try:
        loaded = load(text)
        profiles = [loaded.acceptor_profile(name) for name in loaded.profiles]
    except ProfileError as error:
        words = str(error)
    else:
        assert all(found.contexts for found in profiles)
        words = "my.cfg"
    assert words.startswith("my.cfg")


# --- the page about the format

PAGE = Path(__file__).parents[2] / "docs" / "dcmtk-profiles.md"


def test_the_example_of_the_documentation_loads():
    (example,) = re.findall(r"^```ini\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    mine = profile(example, "mine")
    assert len(mine.contexts) == 3
    assert mine.roles[CT] == Roles(scu=True, scp=True)
    assert mine.application_information[CT] == b"\2\0\0\0\0\0"
    assert load(example).warnings == ()


def test_every_name_of_a_transfer_syntax_is_in_the_documentation():
    rows = dict(re.findall(r"^\| `([^`]+)` \| ([0-9.]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert rows == {name: uid for name, uid in UIDS_BY_NAME.items() if uid in TRANSFER_SYNTAXES}
