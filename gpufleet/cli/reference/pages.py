"""All generated pages, by path."""

from __future__ import annotations

from pathlib import Path

import typer

from gpufleet.cli.main import app
from gpufleet.cli.reference.commands import cli_page
from gpufleet.cli.reference.markdown import fill
from gpufleet.cli.reference.metrics import metrics_page
from gpufleet.cli.reference.reasons import reasons_page
from gpufleet.cli.reference.services import parts
from gpufleet.cli.reference.settings import settings_page
from gpufleet.cli.system import SERVICES


class PageError(ValueError):
    """A page that has no place for what is generated; the text names it."""


def pages(docs: Path, app: typer.Typer = app) -> dict[Path, str]:
    """Returns the text of every page below ``docs``, and of the services' READMEs next to it. Raises PageError."""
    made = {
        docs / "cli.md": cli_page(app),
        docs / "reasons.md": reasons_page(),
        docs / "settings.md": settings_page(),
        docs / "metrics.md": metrics_page(),
    }
    for service in SERVICES:
        readme = docs.resolve().parent / "services" / service / "README.md"
        made[readme] = _filled(readme, parts(service))
    return made


def _filled(path: Path, contents: dict[str, str]) -> str:
    if not path.exists():
        raise PageError(f"{path} does not exist: write it, with a line `<!-- generated: {next(iter(contents))} -->`")
    text = path.read_text(encoding="utf-8")
    for name, content in contents.items():
        filled = fill(text, name, content)
        if filled is None:
            raise PageError(f"{path} has no lines `<!-- generated: {name} -->` and `<!-- end -->`")
        text = filled
    return text
