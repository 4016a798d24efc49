"""The generated pages: the committed ones are what the code says now, and the generator says what it should."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import pytest
import typer
from pydantic_settings import SettingsConfigDict

from gpufleet.cli.reference.__main__ import main
from gpufleet.cli.reference.commands import cli_page
from gpufleet.cli.reference.markdown import fill, table
from gpufleet.cli.reference.metrics import families, scrape
from gpufleet.cli.reference.pages import PageError, pages
from gpufleet.cli.reference.settings import classes, settings
from gpufleet.cli.system import SERVICES
from gpufleet.model.explanations import EVICTIONS, REASONS, VERDICTS
from gpufleet.model.reasons import Code, Verdict
from gpufleet.telemetry.settings import FleetSettings
from services.rescheduler.core.decide import (
    CLUSTER_LOST,
    INFRASTRUCTURE,
    PENDING,
    PROVISIONING,
    START_FAILED,
    USER_FAILURE,
)

ROOT = Path(__file__).resolve().parents[2]
MADE = pages(ROOT / "docs")


@pytest.mark.parametrize("path", sorted(MADE), ids=lambda path: str(path.relative_to(ROOT)))
def test_committed_pages_are_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == MADE[path], "run `make docs`"


# -- what is explained -------------------------------------------------------------------------------------------------


def test_every_verdict_and_reason_is_explained_in_order() -> None:
    assert list(VERDICTS) == list(Verdict)
    assert list(REASONS) == list(Code)


def test_every_eviction_is_explained() -> None:
    assert EVICTIONS.keys() == {PENDING, PROVISIONING, START_FAILED, INFRASTRUCTURE, USER_FAILURE, CLUSTER_LOST}


@pytest.mark.parametrize("text", [*VERDICTS.values(), *(t for e in REASONS.values() for t in (e.cause, e.remedy))])
def test_explanations_are_sentences(text: str) -> None:
    assert text[0].isupper() or text.startswith("`")
    assert text.endswith(".")


def test_every_setting_has_a_meaning_and_a_name_of_its_own() -> None:
    found = [s for cls in classes().values() for s in settings(cls)]
    assert [s.variable for s in found if not s.meaning] == []
    assert len({s.variable for s in found}) == len(found)


@pytest.mark.parametrize("service", SERVICES)
def test_every_metric_has_a_meaning_and_a_name_of_its_service(service: str) -> None:
    for family in families(service):
        assert family.meaning, family.name
        assert family.name.startswith(f"gpufleet_{service}_")
    names = [series for family in families(service) for series in family.series]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("service", SERVICES)
def test_every_metric_can_be_scraped(service: str) -> None:
    """A view of state that is not there fails at the scrape, not before."""
    scraped = set(re.findall(r"^# TYPE (\S+)", scrape(service), re.MULTILINE))
    assert {family.shown for family in families(service)} <= scraped


# -- the generator -----------------------------------------------------------------------------------------------------


def test_settings_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    class Example(FleetSettings):
        model_config = SettingsConfigDict(env_prefix="GPUFLEET_EXAMPLE_")

        wait: float = 2.5
        folder: Path | None = None
        loud: bool = False

    Example.section = "example"
    monkeypatch.setenv("GPUFLEET_EXAMPLE_WAIT", "9")  # the page must not depend on where it is made
    assert [(s.variable, s.path, s.type, s.default) for s in settings(Example)] == [
        ("GPUFLEET_EXAMPLE_WAIT", "example.wait", "number", "2.5"),
        ("GPUFLEET_EXAMPLE_FOLDER", "example.folder", "path", ""),
        ("GPUFLEET_EXAMPLE_LOUD", "example.loud", "boolean", "false"),
    ]


def test_the_page_of_any_application() -> None:
    app = typer.Typer(name="tool", help="Does things.")
    group = typer.Typer(help="Things in groups.")
    app.add_typer(group, name="group")

    @app.command()
    def go(
        where: str,
        fast: Annotated[bool, typer.Option("--fast", "-f", help="Do not look left | right.")] = False,
        speed: Annotated[int, typer.Option("--speed", envvar="TOOL_SPEED", help="How fast.")] = 3,
    ) -> None:
        """Go somewhere.

        Slowly.
        """

    @group.command()
    def inner() -> None:
        """Inside."""

    made = cli_page(app)
    for part in (
        "Does things.",
        "## tool go\n\nGo somewhere.\n\nSlowly.",
        "Do not look left \\| right.",
        "TOOL_SPEED",
        "default: 3",
        "## tool group inner\n\nInside.",
    ):
        assert part in made
    assert made.index("## tool go") < made.index("## tool group")


def test_the_page_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpufleet.cli.main import app

    wide = cli_page(app)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("GPUFLEET_KAFKA_BOOTSTRAP", "elsewhere:9092")
    assert cli_page(app) == wide


def test_filling_keeps_the_rest() -> None:
    page = "a\n<!-- generated: x -->\nold\n<!-- end -->\nb\n<!-- generated: y -->\n<!-- end -->\n"
    filled = fill(page, "x", r"new \1")
    assert filled == page.replace("old", r"new \1")
    assert fill(page, "z", "new") is None


def test_cells_stay_on_one_line() -> None:
    assert table(["a"], [["b\nc | d"], [""]]) == "| a |\n| --- |\n| b c \\| d |\n| - |"


def test_check_tells_what_is_stale_and_writing_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs = tmp_path / "docs"
    for service in SERVICES:
        readme = tmp_path / "services" / service / "README.md"
        readme.parent.mkdir(parents=True)
        places = "".join(f"<!-- generated: {name} -->\n<!-- end -->\n" for name in ("topics", "settings", "metrics"))
        readme.write_text(f"# {service}\n{places}", encoding="utf-8")
    assert main([str(docs), "--check"]) == 1
    assert "make docs" in capsys.readouterr().err
    assert main([str(docs)]) == 0
    assert main([str(docs), "--check"]) == 0


def test_a_page_without_a_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(PageError, match=r"inventory/README\.md does not exist"):
        pages(tmp_path / "docs")
    readme = tmp_path / "services" / "inventory" / "README.md"
    readme.parent.mkdir(parents=True)
    readme.write_text("# inventory\n", encoding="utf-8")
    with pytest.raises(PageError, match="generated: topics"):
        pages(tmp_path / "docs")
