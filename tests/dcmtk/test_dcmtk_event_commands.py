"""Placeholders in commands: the text for harmless values, and what hostile values cannot do in a real shell."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk.event_commands import EventPeer, object_command, sanitized_host, study_command

PEER = EventPeer(calling_ae_title="STORE SCU", called_ae_title="ANY-SCP", host="scanner1")


def of_object(template, peer=PEER, *, directory="/out/S_1.2", file_name="CT.1.2.3"):
    return object_command(template, peer, directory=directory, file_name=file_name)


def test_every_placeholder_for_an_object():
    command = of_object("script #a #c #r #p/#f; echo #f")
    assert command.text == 'script "STORE SCU" "ANY-SCP" scanner1 /out/S_1.2/CT.1.2.3; echo CT.1.2.3'
    assert command.warnings == ()


def test_every_placeholder_for_a_study():
    command = study_command("script #a #c #r #p #f", PEER, directory="/out/S_1.2")
    assert command.text == 'script "STORE SCU" "ANY-SCP" scanner1 /out/S_1.2 #f'


def test_paths_stay_where_nothing_is_stored():
    command = of_object("script #a #p #f", directory=None, file_name=None)
    assert command.text == 'script "STORE SCU" #p #f'


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("#", "#"),
        ("# p #x #A ##", "# p #x #A ##"),
        ("##p", "#/out/S_1.2"),
        ("#pp#ff", "/out/S_1.2pCT.1.2.3f"),
        ("'#r'", "'scanner1'"),
        ("'#a'", "'\"STORE SCU\"'"),
        ("", ""),
    ],
)
def test_replacement_is_plain_text(template, text):
    assert of_object(template).text == text


def test_later_placeholders_are_replaced_in_earlier_insertions_too():
    assert of_object("#p", directory="/out#r/#f#p").text == "/outscanner1/CT.1.2.3#p"


def test_a_changed_value_is_told_where_it_is_used():
    peer = EventPeer(calling_ae_title="A$B", called_ae_title="C`D`", host="-x;y z")
    command = of_object("run #a #r", peer)
    assert command.text == 'run "A_B" _x_y_z'
    assert command.warnings == (
        "unusual characters in the calling AE title were replaced: 'A$B' became 'A_B'",
        "unusual characters in the peer's host name were replaced: '-x;y z' became '_x_y_z'",
    )
    assert of_object("run", peer).warnings == ()


@pytest.mark.parametrize(
    ("host", "word"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("pc-1", "pc-1"),
        ("fe80::1", "fe80::1"),
        ("fe80::1%eth0", "fe80::1_eth0"),
        ("-rf", "_rf"),
        ("a b", "a_b"),
    ],
)
def test_a_host_is_one_word_and_no_option(host, word):
    assert sanitized_host(host) == word


HOSTILE = [
    '"; touch pwned; "',
    "'; touch pwned; '",
    "`touch pwned`",
    "$(touch pwned)",
    "\ntouch pwned\n",
    "& touch pwned &",
    "| touch pwned",
    "> pwned",
    "${x:=`touch pwned`}",
    "\\\ntouch pwned",
    '\\"; touch pwned #',
    "\0touch pwned",
    "#f#p#a",
    "%s%n",
    "EOF\ntouch pwned\nEOF",
    "a[$(touch pwned)]",
]
TEMPLATES = [
    "echo #a #c #r",
    'echo "#a" "#c" "#r"',
    "echo '#a' '#c' '#r'",
    "echo `echo #a #c #r`",
    'echo "$(echo #a "#c" \'#r\')"',
    "cat <<EOF\n#a #c #r\nEOF",
    "x=#r; echo $x #a; echo ${y:-#c}",
    "echo \\#a \\#c \\#r",
    "case #a in #c) echo #r;; *) echo none;; esac",
    "eval \"echo '#a'\" #c",
    "sh -c 'echo #a #c #r'",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_value_reaches_the_shell_as_code(tmp_path, template):
    commands = [
        of_object(template, EventPeer(calling_ae_title=value, called_ae_title=value, host=value))
        for value in HOSTILE
    ]
    for command in commands:
        run = subprocess.run(
            ["sh", "-c", command.text],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=20,
        )
        assert run.returncode == 0, (command.text, run.stderr)
        assert list(tmp_path.iterdir()) == [], command.text


values = st.text(alphabet=st.characters(codec="latin-1"), max_size=20)


@pytest.mark.slow
@given(values, values, values)
def test_inserted_text_means_nothing_to_a_shell(calling, called, host):
    peer = EventPeer(calling_ae_title=calling, called_ae_title=called, host=host)
    text = of_object("#a\n#c\n#r", peer).text
    first, second, third = text.split("\n")
    for quoted, value in ((first, calling), (second, called)):
        assert quoted[0] == quoted[-1] == '"'
        assert len(quoted) == len(value) + 2
        assert all(sign.isalnum() or sign in " -.:@_" for sign in quoted[1:-1])
    assert all(sign.isalnum() or sign in "-.:@_" for sign in third)
    assert text.isascii()
    assert not third.startswith("-")
