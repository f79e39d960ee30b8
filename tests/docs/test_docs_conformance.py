"""The conformance statement says what the code does: its tables, codes, bytes and defaults."""

import ast
import re
from collections.abc import Iterable
from xml.etree.ElementTree import fromstring

import pytest

from stowkeeper.app.setting_fields import describe
from stowkeeper.app.settings_tables import Settings
from stowkeeper.archive.limits import LEDGER_ROWS_MAX
from stowkeeper.dicom.limits import INFLATED_BYTES_MAX, REFERENCES_MAX, SEQUENCE_DEPTH_MAX
from stowkeeper.dicom.sop_classes import SOP_CLASSES, STORAGE_APPLICATION_INFORMATION, SOPClassKind
from stowkeeper.dicom.status import Status, StatusCategory, category_of, meaning_of
from stowkeeper.dicom.transfer_syntaxes import SHIPPED_TRANSFER_SYNTAXES, TRANSFER_SYNTAXES
from stowkeeper.dicom.uid import RECEIPT_CREATOR_UID
from stowkeeper.net.client_connection import ClientTimeouts
from stowkeeper.services.commitment import asking_limits
from stowkeeper.services.commitment import limits as commitment_limits
from stowkeeper.services.commitment.push_model import PUSH_MODEL_CONTEXTS
from stowkeeper.services.commitment.reporting import REPORT_CONTEXTS, REPORT_ROLES
from stowkeeper.services.file_terms import PreamblePolicy
from stowkeeper.services.limits import (
    PEER_ANSWER_SECONDS,
    PEER_CONNECT_SECONDS,
    STORE_PORTION,
    USER_NAME_LETTERS_MAX,
)
from stowkeeper.services.store_request_limits import PARTS_MAX
from stowkeeper.services.stow_client import limits as stow_client_limits
from stowkeeper.stow.reasons import FailureReason, WarningReason
from stowkeeper.upperlayer.limits import (
    ASSOCIATE_PDU_LENGTH_MAX,
    MAX_PDU_LENGTH_LOCAL_DEFAULT,
    OPERATIONS_WINDOW_DEFAULT,
)
from stowkeeper.upperlayer.negotiation import SHIPPED_ROLES, SHIPPED_TRANSFER_SYNTAXES_BY_CLASS
from stowkeeper.web import limits as web_limits
from stowkeeper.web.capabilities import capabilities
from support.generated_pages import DOCS, generate

PAGE = DOCS / "conformance.md"
SERVICES = DOCS.parent / "src" / "stowkeeper" / "services"

# PS3.8 Table 9-21: the reasons that exist for each source.
REJECTION_REASONS = {1: {1, 2, 3, 7}, 2: {1, 2}, 3: {1, 2}}


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """Return what stands below one heading, down to the next."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is no section {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables in a text, without headings."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    ruled = [number for number, row in enumerate(cells) if set(row) == {"---"}]
    headings = {number - 1 for number in ruled} | set(ruled)
    return [row for number, row in enumerate(cells) if number not in headings]


def test_every_class_is_in_one_of_the_tables() -> None:
    stored = generate.PARTS["sop-classes"]()
    others = generate.PARTS["other-sop-classes"]()
    for uid, known in SOP_CLASSES.items():
        expected = stored if known.kind is not SOPClassKind.OTHER else others
        if known.keyword not in {"Verification", "StorageCommitmentPushModel"}:
            assert f"| {known.name} | `{uid}` |" in expected, uid
    assert len(rows(stored)) + len(rows(others)) == len(SOP_CLASSES) - 2


def test_every_transfer_syntax_is_in_one_of_the_tables() -> None:
    shipped = [row[1].strip("`") for row in rows(generate.PARTS["transfer-syntaxes"]())]
    others = [row[1].strip("`") for row in rows(generate.PARTS["other-transfer-syntaxes"]())]
    assert shipped == list(SHIPPED_TRANSFER_SYNTAXES)
    assert sorted(shipped + others) == sorted(TRANSFER_SYNTAXES)


def test_the_sections_of_the_template_stand_in_order(page: str) -> None:
    assert re.findall(r"^## (\d)", page, re.MULTILINE) == list("12345678")


def test_the_status_codes_of_storage(page: str) -> None:
    table = rows(section(page, "7.3.1 C-STORE status codes as SCP"))
    assert [int(code.rstrip("H"), 16) for code, *_ in table] == sorted(
        {
            Status.SUCCESS,
            Status.PROCESSING_FAILURE,
            Status.DUPLICATE_SOP_INSTANCE,
            Status.INVALID_SOP_INSTANCE,
            Status.SOP_CLASS_NOT_SUPPORTED,
            Status.NOT_AUTHORIZED,
            Status.DUPLICATE_INVOCATION,
            Status.OUT_OF_RESOURCES,
            Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
            Status.CANNOT_UNDERSTAND,
        }
    )
    for code, status, meaning, advice in table:
        assert f"{code} {status}" == meaning_of(int(code.rstrip("H"), 16))
        assert meaning.endswith(".")
        assert advice.endswith(".")


def test_the_statement_that_no_warning_is_sent_fits_its_table(page: str) -> None:
    table = rows(section(page, "7.3.1 C-STORE status codes as SCP"))
    categories = {category_of(int(code.rstrip("H"), 16)) for code, *_ in table}
    assert categories == {StatusCategory.SUCCESS, StatusCategory.FAILURE}


# Storage commitment, and what else is asked for.


def used(enumeration: str, *paths: str) -> set[str]:
    """Return the members of an enumeration that some modules of the services name."""
    trees = [ast.parse((SERVICES / path).read_text(encoding="utf-8")) for path in paths]
    return {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == enumeration
        and node.attr.isupper()
    }


def coded(text: str) -> list[tuple[int, list[str]]]:
    """Return the rows of a text that begin with a code, and the other cells."""
    found = []
    for first, *others in rows(text):
        if re.fullmatch(r"[0-9A-F]{4}H", first):
            found.append((int(first[:4], 16), others))
    return found


def with_their_words(found: Iterable[tuple[int, list[str]]]) -> set[int]:
    """See that each code stands beside what it says in our words, in order; return the codes."""
    codes = []
    for code, (status, when) in found:
        assert f"{code:04X}H {status}" == meaning_of(code)
        assert when.endswith(".")
        codes.append(code)
    assert codes == sorted(codes)
    return set(codes)


def test_the_codes_of_storage_commitment_are_those_that_its_modules_give(page: str) -> None:
    provider = section(page, "5.5.1 SCP of the Storage Commitment Push Model SOP Class")
    answers, reasons = provider.split("| Failure Reason (0008,1197) |")
    reports = section(page, "5.5.2 SCU of the Storage Commitment Push Model SOP Class")
    expected = {
        answers: used("Status", "commitment/requests.py"),
        "| Failure Reason (0008,1197) |" + reasons: used(
            "Status",
            "commitment/checking_step.py",
            "commitment/instance_look.py",
            "commitment/policies.py",
            "commitment/recheck_step.py",
            "commitment/reporting.py",
        ),
        reports: used("Status", "commitment/reports_received.py"),
    }
    for text, names in expected.items():
        assert with_their_words(coded(text)) == {Status[name] for name in names}
    other = used("Status", "commitment/asking_once.py") - {"UNRECOGNIZED_OPERATION"}
    assert {Status[name] for name in other} <= with_their_words(coded(reports))


def test_the_bounds_of_storage_commitment_are_named(page: str) -> None:
    def said(number: int) -> str:
        return f"{number:_}".replace("_", " ")

    provider = section(page, "5.5.1 SCP of the Storage Commitment Push Model SOP Class")
    assert f"up to {said(REFERENCES_MAX)} references" in provider
    assert f"Up to {said(commitment_limits.UNREPORTED_REFERENCES_MAX)} references" in provider
    assert f"The first {commitment_limits.UNKNOWN_SECONDS_MIN:g} of these seconds" in provider
    pauses = commitment_limits.GRACE_LOOK_SECONDS_MIN, commitment_limits.GRACE_LOOK_SECONDS_MAX
    assert "from {:g} to {:g} s".format(*pauses) in provider
    user = section(page, "5.5.2 SCU of the Storage Commitment Push Model SOP Class")
    assert f"up to {said(asking_limits.REFERENCES_PER_REQUEST_MAX)}" in " ".join(user.split())
    sender = section(page, "5.3.2 SCU of the storage SOP classes")
    assert f"up to {STORE_PORTION} instances in each" in sender


def test_associations_are_requested_as_said(page: str) -> None:
    text = " ".join(section(page, "7.4 Associations that are requested").split())
    told = {
        row[0].partition(" (")[0]: row[1:]
        for row in rows(section(page, "7.4 Associations that are requested"))
    }
    for purpose, proposed in (
        ("Asking for storage commitment", PUSH_MODEL_CONTEXTS),
        ("Reporting on storage commitment", REPORT_CONTEXTS),
    ):
        (context,) = proposed
        names = [TRANSFER_SYNTAXES[uid].name for uid in context.transfer_syntaxes]
        assert names == ["Explicit VR Little Endian", "Implicit VR Little Endian"]
        assert SOP_CLASSES[context.abstract_syntax].keyword == "StorageCommitmentPushModel"
        assert "Storage Commitment Push Model with Explicit and Implicit VR Little Endian" in told[purpose][0]
    (role,) = REPORT_ROLES
    assert (role.scu_role, role.scp_role) == (False, True)
    assert told["Reporting on storage commitment"][1].startswith("SCP;")
    assert told["Asking for storage commitment"][1] == "none, so SCU"
    assert told["Sending"][2].startswith(f"{OPERATIONS_WINDOW_DEFAULT} invoked as shipped, 1 performed")
    assert told["Maximum length received"] == [str(MAX_PDU_LENGTH_LOCAL_DEFAULT)]
    jobs = told["`serve`: jobs and HTTP, `peers echo`, `commit`, `send --archive`"]
    assert jobs[2].startswith(f"`connect_seconds` of the peer ({PEER_CONNECT_SECONDS:g} s);")
    assert jobs[3].startswith(f"`answer_seconds` ({PEER_ANSWER_SECONDS:g} s)")
    assert told["`send`"][4] == f"{ClientTimeouts().release_seconds:g} s"
    listener = (
        f"Maximum length {MAX_PDU_LENGTH_LOCAL_DEFAULT}, {asking_limits.LISTENER_ASSOCIATIONS_MAX} associations at a"
        f" time, an operations window of up to {OPERATIONS_WINDOW_DEFAULT}"
    )
    assert listener in text
    assert f"stands still for {asking_limits.LISTENER_IDLE_SECONDS:g} s" in text
    assert f"of such there are {asking_limits.KEPT_OPEN_MAX} at a time" in text


def test_what_is_accepted_for_storage_commitment_is_said(page: str) -> None:
    ((uid, syntaxes),) = SHIPPED_TRANSFER_SYNTAXES_BY_CLASS.items()
    names = [TRANSFER_SYNTAXES[syntax].name.removesuffix(" (Retired)") for syntax in syntaxes]
    contexts = " ".join(section(page, "7.2.4 Accepted presentation contexts").split())
    assert f"accepted with {names[0]}, {names[1]} and {names[2]}" in contexts
    assert (SHIPPED_ROLES[uid].scu, SHIPPED_ROLES[uid].scp) == (True, True)
    assert "for the Storage Commitment Push Model the SCP role too" in section(
        page, "7.2.1 Association policies"
    )


# Storing by HTTP.


@pytest.fixture(scope="module")
def origin_server(page: str) -> str:
    return section(page, "5.6.1 Origin server")


@pytest.mark.slow
def test_the_reasons_of_a_store_response(origin_server: str) -> None:
    found = coded(origin_server)
    words: dict[int, str] = {reason.value: reason.words for reason in FailureReason}
    names = used("WarningReason", *(path.name for path in SERVICES.glob("*.py")))
    words |= {WarningReason[name].value: WarningReason[name].words for name in names}
    assert [code for code, _ in found if code < 0xB000 or code >= 0xC000] == sorted(FailureReason)
    assert {code: cells[0] for code, cells in found} == words
    assert all(cells[1].endswith(".") for _, cells in found)


def test_the_page_for_senders_has_the_same_codes(origin_server: str) -> None:
    page = (DOCS / "dicomweb.md").read_text(encoding="utf-8")
    sent = [code for code, cells in coded(origin_server) if not cells[1].startswith("Not sent:")]
    assert [code for code, _ in coded(page)] == [code for code in sent if code not in set(WarningReason)]
    told = {int(code) for first, *_ in rows(page) for code in re.findall(r"\b[2-5][0-9]{2}\b", first)}
    assert told == {int(row[0]) for row in rows(origin_server) if re.fullmatch(r"[2-5][0-9]{2}", row[0])}


def test_the_http_codes_are_those_of_the_capabilities_and_of_every_route(origin_server: str) -> None:
    told = {int(row[0]) for row in rows(origin_server) if re.fullmatch(r"[2-5][0-9]{2}", row[0])}
    (stores,) = (
        method
        for method in fromstring(capabilities("/dicom-web")).findall(".//{*}method")
        if method.get("id") == "store-instances"
    )
    (response,) = stores.findall("{*}response")
    assert told - {405} == {int(code) for code in (response.get("status") or "").split()}
    for form in (one.get("mediaType") or "" for one in stores.findall("{*}request/{*}representation")):
        assert form.rpartition("type=")[2].strip('"') in origin_server


def test_the_numbers_of_storing_by_http(page: str, origin_server: str) -> None:
    assert f"{PARTS_MAX:_} parts".replace("_", " ") in origin_server
    connections = (
        f"{web_limits.CONNECTIONS_MAX} at one time, {web_limits.CONNECTIONS_PER_CLIENT_MAX} from one address"
    )
    assert connections in origin_server
    assert connections in section(page, "7.5 HTTP")
    assert f"slower than {web_limits.STORE_BYTES_PER_SECOND_MIN:g} bytes a second" in origin_server
    policies = {row[0].split("`")[1] for row in rows(origin_server) if row[0].startswith("`")}
    assert policies == {policy.value for policy in PreamblePolicy}
    agent = section(page, "5.6.2 User agent")
    for words in (
        f"{stow_client_limits.BATCH_INSTANCES} instances and {stow_client_limits.BATCH_BYTES // 10**6} MB as shipped",
        f"up to {stow_client_limits.PARALLEL_MAX}, each",
        f"{stow_client_limits.BACK_OFF_SECONDS:g} s, doubling to {stow_client_limits.BACK_OFF_SECONDS_MAX:g} s",
        f"for {stow_client_limits.RETRY_SECONDS:g} s as shipped",
        f"{stow_client_limits.CONNECT_SECONDS:g} s for the connection",
    ):
        assert words in agent, words


def test_the_fixed_limits_are_named(page: str) -> None:
    limits = section(page, "5.3.1 SCP of the storage SOP classes")
    assert f"nested deeper than {SEQUENCE_DEPTH_MAX}," in limits
    assert f"inflates to more than {INFLATED_BYTES_MAX >> 30} GiB" in limits
    settings = rows(section((DOCS / "settings.md").read_text(encoding="utf-8"), "What cannot be set"))
    assert [value for _, value, _ in settings] == [
        str(SEQUENCE_DEPTH_MAX),
        f"{INFLATED_BYTES_MAX >> 30} GiB",
        f"{ASSOCIATE_PDU_LENGTH_MAX >> 10} KiB",
        f"{LEDGER_ROWS_MAX} lines",
    ]


def test_the_user_name_is_as_long_as_said(page: str) -> None:
    assert f"up to {USER_NAME_LETTERS_MAX} characters" in section(page, "7.2.1 Association policies")


def test_unknown_operations_are_answered(page: str) -> None:
    assert f"{Status.UNRECOGNIZED_OPERATION:04X}H" in section(page, "7.3.2 Other messages")


def test_the_answer_to_extended_negotiation(page: str) -> None:
    assert f"`{STORAGE_APPLICATION_INFORMATION.hex(' ')}`" in section(page, "7.2.2 Extended negotiation")
    levels = [row[1] for row in rows(section(page, "5.3.1 SCP of the storage SOP classes"))[:2]]
    assert levels[0].startswith(str(STORAGE_APPLICATION_INFORMATION[0]))
    assert levels[1].startswith(str(STORAGE_APPLICATION_INFORMATION[2]))


def test_rejections_use_codes_that_exist(page: str) -> None:
    table = rows(section(page, "7.2.3 Rejected associations"))
    assert table
    for _, *codes in table:
        result, source, reason = (int(cell.split()[0]) for cell in codes)
        assert result in {1, 2}
        assert reason in REJECTION_REASONS[source]


def test_the_receipts_creator_is_named(page: str) -> None:
    assert f"`{RECEIPT_CREATOR_UID}`" in page


def test_settings_are_named_as_they_are(page: str) -> None:
    tables = "dicom|negotiation|access|storage|log|http|dicomweb|jobs|commitment"
    named = set(re.findall(rf"`((?:{tables})\.[a-z_]+)", page))
    assert named
    assert named - describe(Settings).keys() == set()


def test_settings_ship_with_the_values_on_the_page(page: str) -> None:
    settings = describe(Settings)
    for _, key, value in rows(section(page, "6 Configuration")):
        setting = settings[key.strip("`")]
        shipped = setting.plain(setting.default)
        if shipped in ([], ""):
            assert value in {"any", "none"}, key
        else:
            assert value == f"`{str(shipped).lower() if isinstance(shipped, bool) else shipped}`", key
    policies = section(page, "7.2.1 Association policies")
    limits = [settings[f"dicom.{name}"].default for name in ("associations_max", "associations_per_peer_max")]
    assert f"{limits[0]} in all, {limits[1]} from one address" in policies
    assert f"window of up to {settings['dicom.operations_window'].default} operations" in policies
