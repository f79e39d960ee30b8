"""Command lines put to DCMTK's own storescp and dcmrecv and to ours: the same exit code, stream and words.

Every way in which ours answers otherwise is in DIFFERENCES, with its reason; anything else is a fault.
"""

import contextlib
import itertools
import os
import random
import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stowkeeper.dcmtk.dcmrecv_options import dcmrecv_table
from stowkeeper.dcmtk.grammar import parse
from stowkeeper.dcmtk.log_options import arguments_line
from stowkeeper.dcmtk.storescp_table import storescp_table
from support.dcmtk_command_lines import (
    PORT,
    Answer,
    answer_of_dcmtk,
    answer_of_ours,
    ordinary_user,
    run_dcmtk,
    taken_port,
)
from support.peers import DCMTK_COMPARED, program_path

pytestmark = pytest.mark.slow

UNPRIVILEGED_PORTS = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")

FILES = {
    "info.cfg": "log4cplus.rootLogger = INFO, c\nlog4cplus.appender.c = log4cplus::NullAppender\n",
    "warn.cfg": "log4cplus.rootLogger = WARN, c\nlog4cplus.appender.c = log4cplus::NullAppender\n",
    "fatal.cfg": "log4cplus.rootLogger = FATAL, c\nlog4cplus.appender.c = log4cplus::ConsoleAppender\n",
    "rootless.cfg": "log4cplus.appender.c = log4cplus::NullAppender\n",
    "empty": "",
    "options": "-aet 'A B'\n-pdu\t\"4096\"\r\n",
    "quotes": "-aet a'b'+uf -fe 'x y",
    "wrong": "-pdu 1",
    "nested": "-aet @options",
    "file": "",
}

BOTH = """
; -h; --help; --version; +cc; -h a b c; --version a b c; +cc a b; --version --help; --help --version; +cc --version
--help -ll loud; --version -pdu 1; --help --bogus; --help -aet; +cc --bogus; -h @absent; -h -q; --version -q
PORT; -- PORT; --bogus PORT; -a PORT; -+ PORT; --aet x PORT; --AETITLE x PORT; --aetitle=x PORT; -qv PORT; -Q PORT
-q; -d; -v; -aet; -xf a; +tls a; PORT -od; -pdu; --bogus -aet; -aet --bogus PORT; -od -v PORT
PORT x; PORT ''; - PORT; + PORT; -5 PORT; +5 PORT; -3x PORT; a b --bogus; a b -aet; '' PORT
0; -0; -5; 65536; 99999; 4294967296; 99999999999999999999; abc; 0x68; -104; ''; ' -5'; x104
-pdu 4095 PORT; -pdu 4096 PORT; -pdu 131072 PORT; -pdu 131073 PORT; -pdu 99999999999 PORT; -pdu abc PORT; -pdu '' PORT
-pdu -5 PORT; -pdu -0 PORT; -pdu +5000 PORT; -pdu 5000.7 PORT; -pdu 5e3 PORT; -pdu 0x2000 PORT; -pdu 05000 PORT
-pdu 9000x PORT; -pdu ' 5000' PORT; -pdu ' -5' PORT; -pdu '5 000' PORT; -pdu 1 -pdu 5000 PORT; -pdu 5000 -pdu 1 PORT
-ta 0 PORT; -ta -1 PORT; -ta x PORT; -ta 5x PORT; -ta 2147483648 PORT; -td 0 PORT; -td '' PORT; -td 7 PORT
-ta 0 -td 0 PORT; -td 0 -ta 0 PORT; -pdu 1 -ta 0 PORT
-q -v PORT -od absent; -v -q PORT -od absent; -ll info PORT; -ll INFO PORT; -ll Trace PORT; -ll loud PORT; -ll '' PORT
-ll loud -ll info PORT; -ll info -ll loud PORT; -ll info -q PORT; -ll info -v PORT; -ll info -d PORT; -ll loud -d PORT
-lc absent PORT; -lc '' PORT; -lc empty PORT; -lc file PORT; -lc rootless.cfg PORT; -lc warn.cfg -ll info PORT
-lc warn.cfg -q PORT; -lc absent -v PORT; -lc absent -ll info -d PORT
+v PORT; -v +v PORT; +v -d PORT; -q +v PORT -od absent; -v -q +v PORT; -ll info +v PORT; -ll warn +v PORT; -ll fatal +v PORT
-lc warn.cfg +v PORT
-q -pdu 1 PORT; -ll fatal -pdu 1 PORT; -ll error -pdu 1 PORT; -lc fatal.cfg -pdu 1 PORT; -q --bogus PORT; -q PORT x
-q +pw x PORT; -q -ll info PORT; -q -lc absent PORT
-aet '' PORT; -aet ABCDEFGHIJKLMNOPQRSTUVWXYZ PORT; -fe '' PORT; -dhl PORT; -dhl -dhl PORT
-od . PORT; -od ./ PORT; -od '' PORT; -od absent PORT; -od file PORT; -q -od absent PORT; -od absent -od . PORT
-od absent +pw x PORT; -od absent -xf absent p PORT; -od absent --ignore PORT; -od . --ignore PORT
-xf absent p PORT; -q -xf absent p PORT; -xf '' '' PORT; -xf absent p +pw x PORT; -xf absent p -pdu 1 PORT
-tls PORT; +tls k c -tls +pw x PORT; +pw x PORT; -pw PORT; +ps PORT; -pem PORT; -der PORT; +cf x PORT; +cd x PORT
+crl x PORT; +crv PORT; +cra PORT; +py PORT; +px PORT; +pz PORT; +pn PORT; +cs x PORT; +dp x PORT; +rs x PORT; +ws PORT
+wf x PORT; -rc PORT; -vc PORT; -ic PORT; -vc -ic PORT; -ic -vc PORT; -vc -rc PORT; +pz +py PORT; +px +py PORT
+pn +py PORT; -der -pem PORT; -pw +ps PORT; -pw +pw x PORT; +cra +crv PORT; +crv +crl x PORT; +cs x +cf y PORT
+ws +rs x PORT; +dp x +ws PORT; +tls k c +ws PORT; +tls k c +wf x PORT; +tls k c +wf x +ws PORT; +tls k c +cs x +pz PORT
+tls k c +cs x +px +pz PORT; +tls k c +cs x +pz +ws PORT
@absent; @absent PORT; --bogus @absent; -aet @absent PORT; @options PORT; @wrong PORT; @empty; @empty PORT; @quotes PORT
@nested PORT; @; @ PORT; --help @empty; @options @wrong PORT; @file PORT
"""
"""Command lines for both programs; PORT is a port that is taken, so that what would run ends there."""

STORESCP = """
-id; -id PORT; -id 70000; -id a b; -id --single-process; -id --fork --single-process; --fork -id --version; -id -pdu 1
-id -xcs c -sp; -id -rns -sp; -id -tos 1 -sp; -id +B -ss x
--fork PORT; --fork --single-process PORT; 70000 -ll loud; 0 --fork; abc -xcs c
-xcs c -ss x --fork --single-process PORT; -xcs c -ss x --single-process --fork PORT; -xcs c --fork PORT; -rns --fork PORT
-xcs c PORT; -rns PORT; -tos 1 PORT; -tos 1 -xcs c PORT; -tos 1 -rns PORT; -tos -1 PORT; -tos -1 -sp PORT; -tos x -sp PORT
-tos 0 -sp PORT; -tos ' -5' -sp PORT; -sp -xcs c -rns -tos 1 -xs PORT; -tos 1 -sp --fork PORT; -xs PORT; -xcr a -xcr b PORT
-xcr '' PORT; -xcs '' -sp PORT; --fork --ignore +B -xcr c PORT; -xs -rns -tos 1 -sp -xcs c --fork PORT
-ts -1 PORT; -ts -2 PORT; -ts abc PORT; -ts 0 PORT; -ts 99999999999 PORT; -ts -99999999999 PORT; -ts -x PORT; -ts '' PORT
--sleep-after -1 PORT; --sleep-after 0 PORT; --sleep-after 99999999999 PORT; --sleep-during 0x5 PORT; --sleep-during x PORT
--refuse --reject --ignore --abort-after --abort-during PORT; -pm -up PORT; -ac +ac PORT; +ac PORT
-xf absent p +x= PORT; -xf absent p +xe PORT; -xf absent p +xe +x= PORT; -xf absent p +x= +xe PORT; -xf absent p +xa +xe PORT
-xf absent p +xi PORT; -xf absent p +xd PORT; -xf absent p +xs PORT; -xf absent p -pm PORT; -xf absent p -pm +xa PORT
-pm +x= -xf absent p PORT; -xf absent p -xf x y -pm PORT; -q -xf absent p -pm PORT
+x= +te PORT; +xe +te PORT; +xb +te PORT; +xs +te PORT; +xy +te PORT; +xx +tb PORT; +xv +ti PORT; +xw +td PORT; +xt +te PORT
+xu +te PORT; +xm +te PORT; +xh +te PORT; +xn +te PORT; +xl +te PORT; +x2 +te PORT; +x3 +te PORT; +xo +te PORT; +x4 +te PORT
+x5 +te PORT; +xr +te PORT; +xd +te PORT; +xi +te PORT; +xa +te PORT; +xa +tb PORT; +xa +ti PORT; +xa +td PORT; +xs +t= PORT
+xa +xe +te PORT; +xe +xa +te PORT; +xa +te +B PORT; +xs +te +B PORT; +xa -pm PORT; +te -F PORT
+te +B PORT; +tb +B PORT; +ti +B PORT; +td +B PORT; +t= +B PORT; +te +B -B PORT; +te +t= +B PORT; +t= +te +B PORT
+te +ti +B PORT; +ti +te +B PORT; +B +u PORT; +B -u PORT; -u +u +B PORT; +u -u +B PORT; +B +g= PORT; +B +g PORT; +B -g PORT
+g= -g +g +B PORT; -g +g +B PORT; +B +e PORT; +B -e PORT; -e +e +B PORT; +B -B +u PORT; +B -B +B +e PORT
+p 1 1 PORT; +p 1 PORT; +p x 1 PORT; +p 1 x PORT; +p -1 2 PORT; +p 0 0 PORT; +p 4294967296 1 PORT; +p 1 1 -F PORT
+p 1 1 +B PORT; +p 1 1 -F +B PORT; +p 1 1 -p -F PORT; -p +p 1 1 -F PORT; -F +F +p 1 1 PORT; +p x y -p PORT; -F +p a b PORT
-p -F PORT; -p +B PORT; +B -F PORT; +B -uc PORT; +B +uc PORT; +B +cl 3 PORT
+cl 3 PORT; +cl 0 PORT; +cl 10 PORT; +cl -1 PORT; +cl 3 +td PORT; +cl 3 +te PORT; +cl 3 +te +td PORT; +cl 3 +td +te PORT
+cl 11 +te PORT; +cl 11 +td PORT
-ss x +B PORT; -su x +B PORT; -sp +B PORT; -ss x +B -B PORT; -ss x -sp +B PORT; -sp -ss x +B PORT; -sp -su x +B PORT
-ss '' PORT; -ss a -ss b +B PORT; --ignore -sp PORT
-tn +uf PORT; +uf -tn PORT; -tn +uf -uf PORT; -tn -uf +uf PORT; -tn -uf PORT; -tn +uf +B -ss x PORT; -fe x -uf +uf -tn PORT
-q -xcs c PORT; -q +u +B PORT; -q 70000; -od absent -xcs c PORT; --no-subdir PORT; -uca PORT; +fsu PORT; +ssd PORT
"""
"""Command lines for storescp."""

DCMRECV = """
70000 -pdu 1; 0 -pdu 1; 70000 +pw x; 70000 +B +ssd; 70000 -ll loud; -ll loud; 70000 -od absent; 70000 -xf absent p; -q 70000
+B +ssd PORT; +ssd +B PORT; +ssd -s +B PORT; +ssd +B -B PORT; +ssd +B --ignore PORT; +ssd --ignore PORT; +B --ignore PORT
+ssd --ignore +B PORT; -s +ssd PORT; +fu +fd PORT; -fe x +fsu +fst PORT; +fd PORT; -aet x -uca PORT; -uca -aet x PORT
+pw x +B +ssd PORT; -pdu 1 +B +ssd PORT; -pdu 1 +v PORT; -q +ssd +B PORT; -ll fatal +ssd +B PORT
+tls k c PORT; -q +tls k c PORT; +tls k c -tls PORT; -xf absent p +tls k c PORT; -od absent +tls k c PORT; +tls k c +rs x PORT
--fork PORT; -ts 3 PORT; -id; +xa PORT; -pm PORT; -ss x PORT; -xcr c PORT; +te PORT; -uf PORT; --refuse PORT; -tn PORT
"""
"""Command lines for dcmrecv."""


def lines(table: str) -> list[str]:
    """Return the command lines of a table, which are parted by semicolons and line ends."""
    return [line.strip() for row in table.strip().splitlines() for line in row.split(";")]


TABLE = [
    *((tool, line) for line in dict.fromkeys(lines(BOTH)) for tool in ("storescp", "dcmrecv")),
    *(("storescp", line) for line in dict.fromkeys(lines(STORESCP))),
    *(("dcmrecv", line) for line in dict.fromkeys(lines(DCMRECV))),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A command line that ours answers otherwise than Debian's DCMTK 3.6.7, and why that is meant."""

    reason: str
    tools: tuple[str, ...] = ("storescp", "dcmrecv")
    line: str
    theirs: Answer
    ours: Answer


def error(says: str) -> Answer:
    return Answer(code=1, stream="stderr", says=says)


RUNS = Answer(code=None, stream="stderr", says="runs")
SILENT_SUCCESS = Answer(code=0, stream="", says="")
SILENT_FAILURE = Answer(code=1, stream="", says="")

NOT_IN_3_6_7 = "the option came with 3.6.8"
NEEDS_TLS = "only allowed with --enable-tls"

DIFFERENCES = {
    "rfc8996-profile": Difference(
        reason=NOT_IN_3_6_7,
        line="+pg PORT",
        theirs=error("Unknown option +pg"),
        ours=error(f"--profile-8996 {NEEDS_TLS}"),
    ),
    "modified-rfc8996-profile": Difference(
        reason=NOT_IN_3_6_7,
        line="+pm PORT",
        theirs=error("Unknown option +pm"),
        ours=error(f"--profile-8996-mod {NEEDS_TLS}"),
    ),
    "basic-profile": Difference(
        reason="Debian's OpenSSL has no triple DES; here the table is taken that has every profile",
        line="+pb PORT",
        theirs=error("Unknown option +pb"),
        ours=error(f"--profile-basic {NEEDS_TLS}"),
    ),
    "no-server-name": Difference(
        reason=NOT_IN_3_6_7, line="--no-sni PORT", theirs=error("Unknown option --no-sni"), ours=RUNS
    ),
    "expected-server-name": Difference(
        reason=NOT_IN_3_6_7,
        line="--expect-sni name PORT",
        theirs=error("Unknown option --expect-sni"),
        ours=RUNS,
    ),
    "explain": Difference(
        reason="an option of ours", line="--explain PORT", theirs=error("Unknown option --explain"), ours=RUNS
    ),
    "aes-profile": Difference(
        reason="3.6.7 names another option than the one that was given",
        line="+pa PORT",
        theirs=error(f"--profile-basic {NEEDS_TLS}"),
        ours=error(f"--profile-aes {NEEDS_TLS}"),
    ),
    "inetd-with-fork": Difference(
        reason="3.6.7 gives its standard error away before it finds the conflict; later releases tell it",
        tools=("storescp",),
        line="-id --fork",
        theirs=SILENT_FAILURE,
        ours=error("--inetd not allowed with --fork"),
    ),
    "command-file-is-a-folder": Difference(
        reason="3.6.7 takes a folder for an empty file",
        line="@folder PORT",
        theirs=RUNS,
        ours=error("Cannot open command file 'folder'"),
    ),
}
"""Every difference by its name. What `--arguments` shows differs, too: ours shows empty values and masks passwords."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("command-lines")
    (path / "folder").mkdir()
    for name, text in FILES.items():
        (path / name).write_text(text, encoding="utf-8", newline="")
    return path


@pytest.fixture(scope="module")
def port() -> Iterator[str]:
    with taken_port() as number:
        yield number


def both_answers(tool: str, line: str, port: str, folder: Path) -> tuple[Answer, Answer]:
    arguments = shlex.split(line)
    return (
        answer_of_dcmtk(tool, arguments, port=port, folder=folder),
        answer_of_ours(tool, arguments, port=port, folder=folder),
    )


def expected_of_ours(tool: str, line: str, theirs: Answer) -> Answer:
    """Return what ours should say: the same, but that a connection of inetd is only handed to DCMTK's here."""
    if tool == "storescp" and "-id" in shlex.split(line) and theirs == SILENT_SUCCESS:
        return RUNS
    return theirs


def test_the_table_is_large_enough() -> None:
    assert len(TABLE) >= 120
    assert len(set(TABLE)) == len(TABLE)
    assert not {(tool, d.line) for d in DIFFERENCES.values() for tool in d.tools} & set(TABLE)


@pytest.mark.peer(DCMTK_COMPARED)
@pytest.mark.parametrize(("tool", "line"), TABLE)
def test_ours_answers_as_dcmtk(tool: str, line: str, port: str, folder: Path) -> None:
    theirs, ours = both_answers(tool, line, port, folder)
    assert ours == expected_of_ours(tool, line, theirs)


@pytest.mark.peer(DCMTK_COMPARED)
@pytest.mark.parametrize(
    ("name", "tool"), [(name, tool) for name, found in DIFFERENCES.items() for tool in found.tools]
)
def test_ours_differs_as_it_is_meant_to(name: str, tool: str, port: str, folder: Path) -> None:
    difference = DIFFERENCES[name]
    theirs, ours = both_answers(tool, difference.line, port, folder)
    assert (theirs, ours) == (difference.theirs, difference.ours)


# As a user without privileges

REFUSED = """
-od locked PORT; -od locked --ignore PORT; -od locked 104; -od . 104; -od absent 104; -od . --ignore 104; -od locked/absent PORT
-q -od locked PORT; -od . PORT
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that every user can reach, with a locked one in it."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        (path / "locked").mkdir(mode=0o555)
        path.chmod(0o777)
        yield path


@pytest.mark.peer(DCMTK_COMPARED)
@pytest.mark.parametrize("tool", ["storescp", "dcmrecv"])
@pytest.mark.parametrize("line", lines(REFUSED))
def test_what_a_user_without_privileges_is_refused(
    tool: str, line: str, port: str, open_folder: Path
) -> None:
    if UNPRIVILEGED_PORTS.exists() and int(UNPRIVILEGED_PORTS.read_text()) <= 104:
        pytest.skip("every user may use every port here, which DCMTK takes no notice of")
    with ordinary_user() as user:
        ours = answer_of_ours(tool, shlex.split(line), port=port, folder=open_folder)
    theirs = answer_of_dcmtk(tool, shlex.split(line), port=port, folder=open_folder, user=user)
    assert ours == theirs


# What --arguments shows

SHOWN = """
--arguments PORT; PORT -v --arguments; --arguments -aet 'A B' PORT; --arguments @options PORT; --arguments -od . -fe .dcm PORT
--arguments -aet "it's" -q PORT
"""


@pytest.mark.peer(DCMTK_COMPARED)
@pytest.mark.parametrize("tool", ["storescp", "dcmrecv"])
@pytest.mark.parametrize("line", lines(SHOWN))
def test_arguments_are_shown_as_by_dcmtk(tool: str, line: str, port: str, folder: Path) -> None:
    arguments = [port if argument == PORT else argument for argument in shlex.split(line)]
    run = run_dcmtk(tool, arguments, port=port, folder=folder)
    theirs = re.search(r"I: calling '[^']*' with .*", os.fsdecode(run.stderr))
    table = storescp_table() if tool == "storescp" else dcmrecv_table()
    with contextlib.chdir(folder):
        ours = arguments_line(parse(table, arguments))
    assert theirs is not None
    assert ours == theirs[0].removeprefix("I: ").replace(f"'{program_path(tool)}'", f"'{tool}'").rstrip()


# Which of two errors is reported

MISTAKES = """
--bogus; x1; -ll loud; -ll warn -d; -lc absent; -lc x -ll warn; +v; -ts -2; -ta 0; -td 0; -pdu 1; --sleep-after -1
--sleep-during x; -xf absent p; -xf absent p +xe; -xf absent p -pm; +xa +te; +te +B; +u +B; -u +B; +g= +B; -e +B; +p 1 1 -F
+p x 1; +cl 11; +cl 3 +te; -sp +B; -tn +uf; -xcs c; -rns; -tos 1; -ss x -tos -1; -xcs c --fork -ss x; -rns --fork -ss x
+pw x; -pw; +ps; -pem; -der; +cf x; +cd x; +crl x; +crv; +cra; +px; +py; +pz; +pn; +cs x; +dp x; +rs x; +ws; +wf x; -rc; -vc
-ic; +tls k c +ws; +tls k c +cs x +pz; -od absent
"""
PAIRS = [f"{one} {other} PORT" for one, other in itertools.combinations(lines(MISTAKES), 2)]
PAIRS_TRIED = 320
"""The whole table takes half a minute; the same part of it, chosen by chance, is tried every time."""
CHUNKS = 8


@pytest.mark.peer(DCMTK_COMPARED)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_of_two_errors_ours_reports_the_same(chunk: int, port: str, folder: Path) -> None:
    wrong = []
    for line in random.Random(20).sample(PAIRS, PAIRS_TRIED)[chunk::CHUNKS]:
        theirs, ours = both_answers("storescp", line, port, folder)
        if theirs != ours:
            wrong.append((line, theirs, ours))
    assert not wrong
