"""docs/operations.md has an answer to every alert, and names only what there is."""

import re
from pathlib import Path

import pytest
import yaml

from producer.gateway.settings import GatewaySettings
from producer.settings import ProducerSettings
from tests.dockerfiles import ROOT
from worker.settings import WorkerSettings

DOCS = ROOT / "docs"
PAGES = ("operations.md", "scaling.md")
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((ROOT / "docker/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
RUNBOOK = (DOCS / "operations.md").read_text().partition("\n## Runbook\n")[2]
ANSWERS = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=\n### |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE))
KNOWN = {
    f"CAPTIONQ_{name.upper()}"
    for settings in (ProducerSettings, GatewaySettings, WorkerSettings)
    for name in settings.model_fields
}


def anchors(page: Path) -> set[str]:
    """What headings of a page are linked by, as GitHub names them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_given_all_alerts_the_runbook_has_a_heading_for_each_and_for_nothing_else() -> None:
    assert ANSWERS.keys() == RULES.keys()


@pytest.mark.parametrize("name", RULES)
def test_given_an_alert_its_annotation_leads_to_what_to_look_at_and_what_to_do(name: str) -> None:
    page, _, anchor = RULES[name]["annotations"]["runbook"].partition("#")
    assert page == "docs/operations.md"
    assert anchor == name.lower()
    assert "\nLook: " in ANSWERS[name]
    assert "\nDo: " in ANSWERS[name]
    assert ANSWERS[name].startswith("**page.** ") == (RULES[name]["labels"]["severity"] == "page")


@pytest.mark.parametrize("name", PAGES)
def test_given_a_page_its_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", (DOCS / name).read_text())
    assert links
    for target, anchor in links:
        path = (DOCS / target).resolve() if target else DOCS / name
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


@pytest.mark.parametrize("name", PAGES)
def test_given_a_page_the_settings_that_it_names_exist(name: str) -> None:
    named = set(re.findall(r"\bCAPTIONQ_[A-Z0-9_]*[A-Z0-9]\b", (DOCS / name).read_text()))
    assert named
    assert named <= KNOWN


@pytest.mark.parametrize("name", PAGES)
def test_given_a_page_the_series_that_it_names_are_documented(name: str) -> None:
    series = (DOCS / "metrics.md").read_text()
    named = set(re.findall(r"\bcaptionq_[a-z_]+[a-z]", (DOCS / name).read_text()))
    assert named
    assert not {one for one in named if f"`{one.removesuffix('_sum')}`" not in series}
