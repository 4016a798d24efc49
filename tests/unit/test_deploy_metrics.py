"""Alert rules and the Grafana board: every metric and label that they name is one that a service has."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from gpufleet.cli.reference.metrics import Family, families
from gpufleet.cli.system import SERVICES

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
PROMETHEUS = ROOT / "deploy" / "prometheus"
# Put on by Prometheus, by the scrape configuration, or by a histogram.
OUTER_LABELS = {"job", "instance", "service", "le"}


@cache
def known() -> dict[str, Family]:
    return {series: family for service in SERVICES for family in families(service) for series in family.series}


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in sorted(PROMETHEUS.glob("rules/*.yml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "gpufleet.json").read_text(encoding="utf-8"))
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in board()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in board()["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]


ALL = [pytest.param(expression, id=f"{where} {number}") for number, (where, expression) in enumerate(expressions())]


@pytest.mark.parametrize("expression", ALL)
def test_metrics_and_labels_exist(expression: str) -> None:
    names = re.findall(r"\bgpufleet_\w+", expression)
    assert names or "up{" in expression
    assert [name for name in names if name not in known()] == []
    allowed = OUTER_LABELS | {label for name in names for label in known()[name].labels}
    used = set(re.findall(r"[{,]\s*(\w+)\s*[=!]", expression))
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        used |= {label.strip() for label in group.split(",")}
    assert used <= allowed


@pytest.mark.parametrize("expression", ALL)
def test_parentheses_are_balanced(expression: str) -> None:
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)


def test_counters_are_never_shown_as_they_are() -> None:
    for where, expression in expressions():
        for name in re.findall(r"\bgpufleet_\w+_(?:total|bucket)\b", expression):
            assert re.search(rf"\b(rate|increase)\({name}\b", expression), f"{where}: {name} only grows"


# -- rules -------------------------------------------------------------------------------------------------------------


def test_rules_say_how_bad_it_is_and_what_is_the_case() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) > 0
    for rule in rules():
        assert rule["labels"]["severity"] in ("info", "warning", "critical"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m")), rule["alert"]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_has_its_runbook(rule: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert re.search(rf"^### {rule['alert']}$", text, re.MULTILINE)


def test_runbooks_are_of_alerts_that_exist() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### (Gpufleet\w+)$", text, re.MULTILINE)) == {rule["alert"] for rule in rules()}


def test_alerts_on_states_name_values_that_exist() -> None:
    from gpufleet.model.cluster import Health
    from gpufleet.model.reasons import Verdict

    values: dict[str, set[str]] = {"verdict": {v.value for v in Verdict}, "health": {h.value for h in Health}}
    values["state"] = {"total", "free", "elastic"}
    for where, expression in expressions():
        for label, value in re.findall(r'(\w+)="([^"$]+)"', expression):
            if label in values:
                assert value in values[label], f"{where}: {label}={value}"


# -- board -------------------------------------------------------------------------------------------------------------


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpufleet_board", GRAFANA / "board.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_committed_board_is_the_generated_one() -> None:
    committed = (GRAFANA / "dashboards" / "gpufleet.json").read_text(encoding="utf-8")
    assert committed == _generator().render(), "run python deploy/grafana/board.py"


def test_panels_do_not_overlap_and_fit() -> None:
    taken: dict[tuple[int, int], str] = {}
    numbers = [panel["id"] for panel in board()["panels"]]
    assert len(numbers) == len(set(numbers))
    for panel in board()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_panels_are_explained_and_use_the_chosen_data_source() -> None:
    for panel in board()["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["description"], panel["title"]
        assert {t["datasource"]["uid"] for t in panel["targets"]} == {"${datasource}"}


def test_provisioning_leads_to_the_board() -> None:
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/gpufleet.yaml").read_text(encoding="utf-8"))
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text(encoding="utf-8"))
    assert provider["apiVersion"] == source["apiVersion"] == 1
    (folder,) = [p["options"]["path"] for p in provider["providers"]]
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert any(v.startswith(f"./deploy/grafana/dashboards:{folder}") for v in compose["services"]["grafana"]["volumes"])
    assert [s["url"] for s in source["datasources"]] == ["http://prometheus:9090"]
