"""The page of the drop-in commands: nothing of DCMTK's manual pages is missing, and what it says is what the code does."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from stowkeeper.dcmtk.dcmrecv_options import DcmrecvExit, dcmrecv_table, evaluate_dcmrecv
from stowkeeper.dcmtk.encoding.limits import NODES_MAX
from stowkeeper.dcmtk.encoding.meta import NO_SOP_CLASS_UID
from stowkeeper.dcmtk.grammar import OptionTable, parse
from stowkeeper.dcmtk.limits import COMMAND_FILE_BYTES_MAX, FILE_NAME_TRIES_MAX
from stowkeeper.dcmtk.log_options import LogLevel, LogOptions
from stowkeeper.dcmtk.negotiation import DEFAULT_STORAGE_CLASSES
from stowkeeper.dcmtk.network_options import ProfileChoice
from stowkeeper.dcmtk.preferences import Preference, accepted_transfer_syntaxes
from stowkeeper.dcmtk.storage_class_table import STORAGE_CLASSES
from stowkeeper.dcmtk.storescp_options import StorescpExit, evaluate_storescp
from stowkeeper.dcmtk.storescp_table import storescp_table
from stowkeeper.dcmtk.usage import COMPATIBLE_DATE, COMPATIBLE_VERSION
from stowkeeper.dicom.limits import INFLATED_BYTES_MAX, SEQUENCE_DEPTH_MAX
from stowkeeper.upperlayer.limits import ASSOCIATE_PDU_LENGTH_MAX
from support.generated_pages import DOCS, generate

PAGE = (DOCS / "dcmtk.md").read_text(encoding="utf-8")

# What DCMTK's manual pages name.

OF_BOTH = """
-h --help --version --arguments -q --quiet -v --verbose -d --debug -ll --log-level -lc --log-config +v --verbose-pc
-xf --config-file -ta --acse-timeout -td --dimse-timeout -aet --aetitle -pdu --max-pdu -dhl --disable-host-lookup
-tls --disable-tls +tls --enable-tls +ps --std-passwd +pw --use-passwd -pw --null-passwd -pem --pem-keys
-der --der-keys +cf --add-cert-file +cd --add-cert-dir +crl --add-crl-file +crv --enable-crl-vfy +cra --enable-crl-all
+pg --profile-8996 +pm --profile-8996-mod +py --profile-bcp195-nd +px --profile-bcp195 +pz --profile-bcp195-ex
+pb --profile-basic +pa --profile-aes +pn --profile-null +cc --list-ciphers +cs --cipher +dp --dhparam --no-sni
--expect-sni +rs --seed +ws --write-seed +wf --write-seed-file -rc --require-peer-cert -vc --verify-peer-cert
-ic --ignore-peer-cert -od --output-directory -fe --filename-extension -B --normal +B --bit-preserving --ignore
"""
OF_STORESCP = """
--single-process --fork +x= --prefer-uncompr +xe --prefer-little +xb --prefer-big +xs --prefer-lossless
+xy --prefer-jpeg8 +xx --prefer-jpeg12 +xv --prefer-j2k-lossless +xw --prefer-j2k-lossy +xt --prefer-jls-lossless
+xu --prefer-jls-lossy +xm --prefer-mpeg2 +xh --prefer-mpeg2-high +xn --prefer-mpeg4 +xl --prefer-mpeg4-bd
+x2 --prefer-mpeg4-2-2d +x3 --prefer-mpeg4-2-3d +xo --prefer-mpeg4-2-st +x4 --prefer-hevc +x5 --prefer-hevc10
+xr --prefer-rle +xd --prefer-deflated +xi --implicit +xa --accept-all -ac --access-full +ac --access-control
-id --inetd -ts --socket-timeout --refuse --reject --sleep-after --sleep-during --abort-after --abort-during
-pm --promiscuous -up --uid-padding +F --write-file -F --write-dataset +t= --write-xfer-same +te --write-xfer-little
+tb --write-xfer-big +ti --write-xfer-implicit +td --write-xfer-deflated +u --enable-new-vr -u --disable-new-vr
+g= --group-length-recalc +g --group-length-create -g --group-length-remove +e --length-explicit
-e --length-undefined -p --padding-off +p --padding-create -uc --retain-un +uc --convert-un +cl --compression-level
-ss --sort-conc-studies -su --sort-on-study-uid -sp --sort-on-patientname -uf --default-filenames
+uf --unique-filenames -tn --timenames -xcr --exec-on-reception -xcs --exec-on-eostudy -rns --rename-on-eostudy
-tos --eostudy-timeout -xs --exec-sync
"""
OF_DCMRECV = """
-uca --use-called-aetitle -s --no-subdir +ssd --series-date-subdir +fd --default-filenames +fu --unique-filenames
+fsu --short-unique-names +fst --system-time-names
"""
OPTIONS = {"storescp": OF_BOTH + OF_STORESCP, "dcmrecv": OF_BOTH + OF_DCMRECV}
TABLES = {"storescp": storescp_table(), "dcmrecv": dcmrecv_table()}

OTHER_NAMES = """
DCMDICTPATH dicom.dic asconfig.txt storescp.cfg logger.cfg dumppat.txt /etc/hosts.allow /etc/hosts.deny /etc/inetd.conf
/etc/services #p #f #a #c #r ANONYMOUS undef/ data/
"""
"""Variables, files, placeholders and parts of file names."""

TRANSFER_SYNTAXES = """
1.2 1.2.1 1.2.1.98 1.2.1.99 1.2.2 1.2.4.50 1.2.4.51 1.2.4.70 1.2.4.80 1.2.4.81 1.2.4.90 1.2.4.91 1.2.4.100 1.2.4.100.1
1.2.4.101 1.2.4.101.1 1.2.4.102 1.2.4.102.1 1.2.4.103 1.2.4.103.1 1.2.4.104 1.2.4.104.1 1.2.4.105 1.2.4.105.1 1.2.4.106
1.2.4.106.1 1.2.4.107 1.2.4.108 1.2.4.201 1.2.4.202 1.2.4.203 1.2.5
"""
"""What +xa accepts, without the root 1.2.840.10008 of the UIDs."""


def section(heading: str) -> str:
    """Return what stands below a heading of the second level, down to the next one."""
    found = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is no section {heading!r}"
    return found[1]


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of all lines of tables, headings included."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


def difference_rows() -> list[dict[str, Any]]:
    return [row for group in generate.differences()["groups"] for row in group["rows"]]


# Nothing is missing


@pytest.mark.parametrize("tool", OPTIONS)
def test_every_option_of_the_manual_page_is_there_with_its_state(tool: str) -> None:
    states = {
        name: cells[-1]
        for cells in rows(section(f"Options of `{tool}`"))
        for name in re.findall(r"`([^`]+)`", cells[0])
    }
    for name in OPTIONS[tool].split():
        assert re.match("as DCMTK", states.pop(name)), name
    assert states == {"--explain": "ours alone"}


@pytest.mark.parametrize("name", OTHER_NAMES.split())
def test_every_other_name_of_the_manual_pages_is_there(name: str) -> None:
    assert name in PAGE


def test_every_transfer_syntax_of_the_manual_page_is_there() -> None:
    found = re.findall(r"`(1\.2\.840\.10008\.1\.2[.0-9]*)`", section("Transfer syntaxes"))
    assert {f"1.2.840.10008.{suffix}" for suffix in TRANSFER_SYNTAXES.split()} == set(found)
    assert tuple(found) == accepted_transfer_syntaxes(Preference.ACCEPT_ALL, byte_order="little")


def test_every_preference_is_there() -> None:
    names = [cells[0].split("`")[1] for cells in rows(section("Transfer syntaxes")) if "`" in cells[0]]
    assert names == [preference.value for preference in Preference]


def test_every_storage_class_is_there() -> None:
    found = {
        cells[1].strip("`"): cells[3] for cells in rows(section("SOP classes")) if cells[1].startswith("`")
    }
    assert list(found) == [row.split()[0] for row in STORAGE_CLASSES.splitlines()]
    assert {uid for uid, accepted in found.items() if accepted == "yes"} == DEFAULT_STORAGE_CLASSES


# What it says is what the code does


def test_exit_codes() -> None:
    codes = [
        int(cells[0].strip("`")) for cells in rows(section("Exit codes")) if cells[0].strip("`").isdigit()
    ]
    assert codes == [*StorescpExit, *DcmrecvExit]


def command_lines() -> list[str]:
    lines = [
        line.strip()
        for line in PAGE.splitlines()
        if "stowkeeper storescp " in line or "stowkeeper dcmrecv " in line
    ]
    lines = [re.sub(r"^(ExecStart=\S+|acr-nema.* stowkeeper)(?= \w+ )", "stowkeeper", line) for line in lines]
    lines += [f"stowkeeper {arguments}" for arguments in re.findall(r"server_args = (.+)", PAGE)]
    return [
        line
        for line in lines
        if line.startswith("stowkeeper ") and "options]" not in line and "$@" not in line
    ]


def test_there_are_command_lines_to_try() -> None:
    assert len(command_lines()) == 9


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_is_right(line: str) -> None:
    def start_logging(options: LogOptions) -> LogLevel:
        return options.level

    def load_profile(choice: ProfileChoice) -> None:
        assert (choice.file, choice.name) == ("storescp.cfg", "Default")

    _, tool, *arguments = shlex.split(line)
    found = parse(TABLES[tool], arguments)
    if tool == "storescp":
        evaluate_storescp(TABLES[tool], found, start_logging=start_logging, load_profile=load_profile)
    else:
        evaluate_dcmrecv(TABLES[tool], found, start_logging=start_logging)


def test_bounds() -> None:
    (words,) = [row["ours"] for row in difference_rows() if row["name"] == "bounds"]
    assert f"deeper than {SEQUENCE_DEPTH_MAX}," in words
    assert f"more than {NODES_MAX:,} elements" in words
    assert f"inflate to more than {INFLATED_BYTES_MAX >> 30} GiB" in words
    assert f"may be {ASSOCIATE_PDU_LENGTH_MAX >> 10} KiB" in words
    assert f"gives up after {FILE_NAME_TRIES_MAX:,}." in PAGE
    assert f"a file of more than {COMMAND_FILE_BYTES_MAX >> 20} MiB" in PAGE


def test_constants() -> None:
    assert f"`{NO_SOP_CLASS_UID}`" in PAGE
    assert f"`$dcmtk: storescp v{COMPATIBLE_VERSION} {COMPATIBLE_DATE} $`" in PAGE
    assert f"accepts the {len(DEFAULT_STORAGE_CLASSES)} of 3.7.0" in PAGE


# The differences


def test_each_difference_has_a_name_of_its_own_and_says_all_it_should() -> None:
    names = [row["name"] for row in difference_rows()]
    assert len(set(names)) == len(names)
    for row in difference_rows():
        assert set(row) == {"name", "options", "dcmtk", "ours", "why"}
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row["name"])
        assert all(row[key].endswith(".") for key in ("dcmtk", "ours", "why")), row["name"]


def keyed_options(table: OptionTable) -> set[str]:
    longs = {option.long for option in table.options()}
    return longs | {f"{table.tool}:{long}" for long in longs}


def test_differences_are_about_options_that_are_there() -> None:
    known = set().union(*(keyed_options(table) for table in TABLES.values()))
    mentioned = {option for row in difference_rows() for option in row["options"]}
    assert mentioned | set(generate.differences()["states"]) <= known


def test_every_state_leads_to_its_row() -> None:
    anchors = re.findall(r'<a id="([^"]+)"></a>', PAGE)
    assert sorted(anchors) == sorted(row["name"] for row in difference_rows())
    targets = re.findall(r'<a href="#([^"]+)">', PAGE)
    assert targets
    assert set(targets) <= set(anchors)
    assert {row["name"] for row in difference_rows() if row["options"]} == set(targets)
