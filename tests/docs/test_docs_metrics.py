"""The page on metrics and the dashboard name the metrics that a server exports, with their labels, and no others."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import JobRequest
from stowkeeper.services.scrubbing import SCRUB, Round
from stowkeeper.web.metrics import Metrics
from stowkeeper.web.services import ServerFacts
from support.archive_server import open_archive
from support.generated_pages import DOCS

OF_PROMETHEUS = {"instance", "job"}
"""Labels that Prometheus adds to every sample."""

_NAME = re.compile(r"\b(?:stowkeeper|process)_[a-z_]+")
_SELECTED = re.compile(r"\b((?:stowkeeper|process)_[a-z_]+)\{([^}]*)\}")
_MATCHED = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"')
_SUMMED = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
_SHOWN = re.compile(r"\{\{\s*([a-z_]+)\s*\}\}")

Exported = Mapping[str, set[str]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return every metric of a server that has done something of all that it tells, with its labels."""
    archive = open_archive(tmp_path_factory.mktemp("metrics") / "archive")
    try:
        this = Round(
            number=1,
            began_at="2026-01-02T00:00:00.000000Z",
            counted_at="2026-01-02T00:00:00.000000Z",
            total=1,
            left=1,
            files_expected=1,
            files=0,
            found_before={},
        )
        with archive.database.write() as transaction:
            checkpoint = {"round": this.to_json(), "found": {}}
            jobs.submit(transaction, JobRequest(kind=SCRUB, arguments={}, checkpoint=checkpoint))
        facts = ServerFacts(version="1", ae_title="A", dicom_host="", dicom_port=0, started_at="")
        metrics = Metrics(archive, facts)
        return dict(sample for family in metrics._registry.collect() for sample in samples_of(family))
    finally:
        archive.close()


def samples_of(family: Metric) -> Iterator[tuple[str, set[str]]]:
    """Yield the names of a family's samples, and their labels."""
    labels = set(getattr(family, "_labelnames", ()))
    if isinstance(family, CounterMetricFamily):
        yield f"{family.name}_total", labels
    elif isinstance(family, HistogramMetricFamily):
        yield f"{family.name}_bucket", {*labels, "le"}
        yield f"{family.name}_sum", labels
        yield f"{family.name}_count", labels
    elif isinstance(family, InfoMetricFamily):
        (sample,) = family.samples
        yield sample.name, set(sample.labels)
    else:
        yield family.name, labels


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "metrics.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
    return found


def queries(dashboard: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the title, expression and legend of every query in a panel."""
    return [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


def test_the_page_has_every_metric_with_its_labels(page: str, exported: Exported) -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (.*?) ?\| .+ \|$", page, re.MULTILINE)
    assert len({name for name, _ in rows}) == len(rows)
    assert {name: set(re.findall(r"`([a-z_]+)`", labels)) for name, labels in rows} == dict(exported)


def test_every_query_names_a_metric_with_labels_that_it_has(
    dashboard: Mapping[str, Any], exported: Exported
) -> None:
    for title, expression, legend in queries(dashboard):
        names = set(_NAME.findall(expression))
        assert names, title
        assert names <= set(exported), (title, names - set(exported))
        selected = _SELECTED.findall(expression)
        assert {name for name, _ in selected} == names, f"{title}: not limited to the servers that are chosen"
        for name, matchers in selected:
            labels = set(_MATCHED.findall(matchers))
            assert "instance" in labels, title
            assert labels <= exported[name] | OF_PROMETHEUS, (title, name, labels)
        summed = {label.strip() for labels in _SUMMED.findall(expression) for label in labels.split(",")}
        for name in names:
            assert summed <= exported[name] | OF_PROMETHEUS, (title, name, summed)
        # What is summed up has no labels but those that it is summed by.
        has = (
            summed if "sum" in expression else set.union(*(exported[name] for name in names)) | OF_PROMETHEUS
        )
        assert set(_SHOWN.findall(legend)) <= has, (title, legend)


def test_counters_are_shown_as_rates_and_nothing_else_is(
    dashboard: Mapping[str, Any], exported: Exported
) -> None:
    growing = re.compile(r"(?:_total|_bucket|_seconds_sum|_seconds_count)$")
    for title, expression, _ in queries(dashboard):
        rated = set(re.findall(r"\b(?:rate|increase)\(([a-z_]+)\{[^}]*\}\[\$__rate_interval\]\)", expression))
        counters = {name for name in _NAME.findall(expression) if growing.search(name)}
        assert rated == counters, title


def test_every_metric_stands_in_a_panel_or_is_named_as_left_out(
    page: str, dashboard: Mapping[str, Any], exported: Exported
) -> None:
    left_out = re.findall(r"^- `([a-z_]+)`: .+$", page.partition("\n## Left out\n")[2], re.MULTILINE)
    shown = {name for _, expression, _ in queries(dashboard) for name in _NAME.findall(expression)}
    assert shown.isdisjoint(left_out)
    assert shown | set(left_out) == set(exported)


def test_grafana_can_take_the_file(dashboard: Mapping[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert all(x < 24 for x, _ in cells), panel["title"]
        assert taken.isdisjoint(cells), panel["title"]
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(references)) == len(references)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)\}?", json.dumps(panels)))
    assert used <= variables
