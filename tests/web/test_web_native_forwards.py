"""/api/forwards: what rules chose, in pages and by filters; and the gauge of what is open."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from stowkeeper.archive import catalog
from stowkeeper.database.schema import forwards
from stowkeeper.web.roles import Role
from support.catalog_rows import make_entry
from support.web_server import Rig, bearer, web_client

pytestmark = pytest.mark.slow

AT = "2026-01-02T03:04:05.000006Z"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Rig]]:
    with web_client(tmp_path_factory.mktemp("web") / "archive") as (client, rig):
        with rig.archive.database.write() as transaction:
            entries = [make_entry(number, number) for number in range(1, 4)]
            entries.append(make_entry(4, 4, study="1.2.2", series="1.2.2.1"))
            catalog.insert(transaction, entries)
            for version_key in range(1, 5):
                for destination, state in (
                    ("PACS", "sent"),
                    ("AWAY", "failed" if version_key == 2 else "waiting"),
                ):
                    transaction.execute(
                        insert(forwards).values(
                            version_key=version_key,
                            destination=destination,
                            rule="all & more",
                            priority=5,
                            state=state,
                            words="it is away" if state == "failed" else "",
                            created_at=AT,
                            changed_at=AT,
                        )
                    )
        client.headers.update(bearer(rig.token("reader", Role.READ)))
        yield client, rig


def shown(page: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["sop_instance_uid"], one["destination"], one["state"]) for one in page["items"]]


def test_forwards_are_listed_newest_first_page_after_page(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    page = client.get("/api/forwards?limit=3").json()
    found = shown(page)
    while page["next"]:
        page = client.get(page["next"]).json()
        found += shown(page)
    assert found == [
        (f"1.2.3.{number}", destination, state)
        for number in (4, 3, 2, 1)
        for destination, state in (("AWAY", "failed" if number == 2 else "waiting"), ("PACS", "sent"))
    ]


def test_filters_choose_forwards_and_stay_in_the_next_page(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    page = client.get("/api/forwards?state=waiting&state=failed&study_instance_uid=1.2.1&limit=2").json()
    assert shown(page) == [("1.2.3.3", "AWAY", "waiting"), ("1.2.3.2", "AWAY", "failed")]
    assert shown(client.get(page["next"]).json()) == [("1.2.3.1", "AWAY", "waiting")]
    page = client.get(
        "/api/forwards", params={"rule": "all & more", "destination": "PACS", "limit": 1}
    ).json()
    assert shown(client.get(page["next"]).json()) == [("1.2.3.3", "PACS", "sent")]
    assert shown(client.get("/api/forwards?sop_instance_uid=1.2.3.4&state=sent").json()) == [
        ("1.2.3.4", "PACS", "sent")
    ]
    assert shown(client.get("/api/forwards?destination=NOBODY").json()) == []
    assert client.get("/api/forwards?state=lost").status_code == 422
    assert client.get("/api/forwards?cursor=x").status_code == 422


def test_a_forward_says_what_it_is_and_no_key_of_a_version(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    (one,) = client.get("/api/forwards?state=failed").json()["items"]
    assert one == {
        "forward_key": 4,
        "sop_instance_uid": "1.2.3.2",
        "series_instance_uid": "1.2.1.1",
        "study_instance_uid": "1.2.1",
        "destination": "AWAY",
        "rule": "all & more",
        "priority": 5,
        "state": "failed",
        "job_id": None,
        "words": "it is away",
        "created_at": AT,
        "changed_at": AT,
    }


def test_who_may_not_read_is_not_told(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    assert client.get("/api/forwards", headers=bearer(rig.token("nobody", Role.NONE))).status_code == 403


def test_the_gauge_counts_what_is_open_by_destination(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    text = client.get("/metrics").text
    assert 'stowkeeper_forwards{destination="AWAY",state="waiting"} 3.0' in text
    assert 'stowkeeper_forwards{destination="AWAY",state="failed"} 1.0' in text
    assert 'destination="PACS"' not in text
