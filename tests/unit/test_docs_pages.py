"""The pages that people write: links lead somewhere, and what they name exists."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from gpufleet.bus.topics import load_registry
from gpufleet.cli.main import app
from gpufleet.cli.reference.metrics import build, families, wired
from gpufleet.cli.reference.settings import settings, variables
from gpufleet.cli.system import SERVICES
from gpufleet.model.reasons import Code
from gpufleet.wire.documents import parse_text
from tests.support.commands import gpufleet

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = sorted(
    [
        *(p for p in ROOT.glob("*.md") if p.name != "CHANGELOG.md"),
        *(p for room in ("docs", "services", "proto", "benchmarks") for p in ROOT.glob(f"{room}/**/*.md")),
    ]
)
VARIABLE = r"\bGPUFLEET_[A-Z_0-9]+[A-Z0-9]\b"
PROGRAM = ".venv/bin/"
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
pages = pytest.mark.parametrize("page", PAGES, ids=IDS)


@cache
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for found in re.finditer(r"^( *)```(\w+)\n(.*?)^ *```", text(page), re.DOTALL | re.MULTILINE):
        if found[2] in languages:
            yield re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE)


def anchors(page: Path) -> set[str]:
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    }


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", text(page)):
        path, _, anchor = target.partition("#")
        assert "://" not in path, target
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@pages
def test_settings_exist(page: Path) -> None:
    named = set(re.findall(VARIABLE, text(page)))
    of_tools = {
        name for p in [*ROOT.glob("benchmarks/*.py"), ROOT / "Makefile"] for name in re.findall(VARIABLE, text(p))
    }
    assert named - variables() - of_tools == set()


@pages
def test_metrics_exist(page: Path) -> None:
    known = {name for service in SERVICES for f in families(service) for name in (f.name, *f.series)}
    named = set(re.findall(r"`(gpufleet_\w+)`", text(page)))
    assert named - known == set()


def _commands(page: Path) -> Iterator[str]:
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.removeprefix(PROGRAM).startswith("gpufleet "):
                yield line.removeprefix(PROGRAM).partition("#")[0]
    yield from re.findall(r"`(gpufleet [a-z][^`]*)`", re.sub(r"```.*?```", "", text(page), flags=re.DOTALL))


@pages
def test_commands_are_commands_of_the_command_line(page: Path) -> None:
    for line in _commands(page):
        for part in line.split(" | "):
            _parse(shlex.split(part)[1:])


@pages
def test_files_of_commands_exist(page: Path) -> None:
    for line in _commands(page):
        for path in re.findall(r"\bdocs/examples/\S+", line):
            assert (ROOT / path).exists(), line


def test_the_what_ifs_of_the_readme_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    lines = [line for line in _commands(README) if line.startswith(("gpufleet plan ", "gpufleet simulate "))]
    assert len(lines) == 2
    for line in lines:
        done = gpufleet(*shlex.split(line)[1:])
        assert (done.code, done.err) == (0, ""), line


def test_the_workload_that_the_readme_explains_is_the_one_that_it_applies() -> None:
    line = next(line for line in _commands(README) if line.startswith("gpufleet explain"))
    (applied,) = (line for line in _commands(README) if line.startswith("gpufleet apply -f"))
    paths = re.findall(r"-f (\S+)", applied)
    keys = {item.key for path in paths for item in parse_text(text(ROOT / path), path).objects}
    assert shlex.split(line)[2] in keys


@pages
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", text(ROOT / "Makefile"), re.MULTILINE))
    named = re.findall(r"^make ([a-z0-9- ]+)", "\n".join(blocks(page, "sh")), re.MULTILINE)
    named += re.findall(r"`make ([a-z0-9- ]+)`", text(page))
    assert {target for words in named for target in words.split()} <= targets


def _parse(arguments: list[str]) -> None:
    command: Any = get_command(app)
    names = list(arguments)
    while hasattr(command, "commands"):
        if not names or names[0].startswith("-"):
            return
        assert names[0] in command.commands, f"no command gpufleet {' '.join(arguments)}"
        command = command.commands[names.pop(0)]
    # A command that is only mentioned is named without what it needs.
    if names:
        command.make_context(command.name, names)


@pages
def test_documents_can_be_read(page: Path) -> None:
    for block in blocks(page, "yaml"):
        read = parse_text(block, page.name)
        assert read.objects
        assert not read.warnings


def test_the_check_of_commands_finds_mistakes() -> None:
    with pytest.raises(AssertionError, match="no command"):
        _parse(["frobnicate"])
    with pytest.raises(Exception, match="--nonsense"):
        _parse(["apply", "--nonsense"])


@pages
def test_reason_codes_in_code_exist(page: Path) -> None:
    """Words like `InventoryStale` in parentheses or tables are codes of something that exists."""
    known = {code.value for code in Code}
    for name in re.findall(r"\(`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`\)", text(page)):
        assert name in known, name


@pytest.mark.parametrize("service", SERVICES)
def test_probes_in_the_services_readmes_are_the_checks(service: str) -> None:
    health = asyncio.run(wired(service)).health
    live, ready = asyncio.run(health.live())[1]["checks"], asyncio.run(health.ready())[1]["checks"]
    rows = re.findall(r"^\| `(/\w+)` \| `(\w+)` \|", text(ROOT / "services" / service / "README.md"), re.MULTILINE)
    assert {name for probe, name in rows if probe == "/livez"} == live.keys()
    assert {name for probe, name in rows if probe == "/readyz"} == ready.keys() - live.keys()


def test_setting_names_in_the_services_readmes_exist() -> None:
    from gpufleet.cli.reference.settings import classes

    known = {s.path.rpartition(".")[2] for cls in classes().values() for s in settings(cls)}
    for service in SERVICES:
        body = re.sub(
            r"<!-- generated.*?<!-- end -->", "", text(ROOT / "services" / service / "README.md"), flags=re.DOTALL
        )
        for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", body):
            assert name in known | {"held_back"}, f"{service}: {name}"


def test_the_architecture_page_has_the_readers_and_writers_of_every_topic() -> None:
    built = {service: build(service) for service in SERVICES}
    rows = re.findall(r"^\| `(gpufleet\.\w+)` \| .* \| (.*) \| (.*) \|$", text(ROOT / "docs" / "architecture.md"), re.M)
    registry = load_registry()
    assert [name for name, _, _ in rows] == [t.name for t in registry if not t.name.endswith(".dlq")]
    for name, written, read in rows:
        topic = registry[name]
        readers = {s for s in SERVICES if topic.short in (*built[s].reads, *built[s].owns)}
        assert set(re.findall(r"\w+", read)) & set(SERVICES) == (set() if read.startswith("all") else readers), name
        writers = {s for s in SERVICES if s in topic.written_by}
        assert set(re.findall(r"\w+", written)) & set(SERVICES) == (set() if written == "all" else writers), name


@pages
def test_nothing_of_this_machine_is_named(page: Path) -> None:
    assert not re.search(r"/work/|/root/|/home/\w", text(page))
