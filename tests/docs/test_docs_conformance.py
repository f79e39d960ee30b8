"""The conformance statement says what the code does: its tables, codes, bytes and defaults."""

import re

import pytest

from stowkeeper.app.setting_fields import describe
from stowkeeper.app.settings_tables import Settings
from stowkeeper.archive.limits import LEDGER_ROWS_MAX
from stowkeeper.dicom.limits import INFLATED_BYTES_MAX, SEQUENCE_DEPTH_MAX
from stowkeeper.dicom.sop_classes import SOP_CLASSES, STORAGE_APPLICATION_INFORMATION, SOPClassKind
from stowkeeper.dicom.status import Status, StatusCategory, category_of, meaning_of
from stowkeeper.dicom.transfer_syntaxes import SHIPPED_TRANSFER_SYNTAXES, TRANSFER_SYNTAXES
from stowkeeper.dicom.uid import RECEIPT_CREATOR_UID
from stowkeeper.services.limits import USER_NAME_LETTERS_MAX
from stowkeeper.upperlayer.limits import ASSOCIATE_PDU_LENGTH_MAX
from support.generated_pages import DOCS, generate

PAGE = DOCS / "conformance.md"

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
    named = set(
        re.findall(r"`((?:dicom|negotiation|access|storage|log|http|jobs|commitment)\.[a-z_]+)", page)
    )
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
