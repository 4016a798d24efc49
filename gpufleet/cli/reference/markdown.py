"""Small pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NOTICE = "<!-- Generated from the code by `make docs`; changes made here are lost. -->"


def page(title: str, *blocks: str) -> str:
    """Returns a page of blocks, each a paragraph, a heading or a table."""
    return "\n\n".join([f"# {title}", NOTICE, *(block.strip("\n") for block in blocks)]) + "\n"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table."""
    lines = [list(headers), ["---"] * len(headers), *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(text: str) -> str:
    """Returns text that fits into a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|") or "-"


def code(text: str) -> str:
    """Returns text as code."""
    return f"`{text}`" if text else ""


def flat(text: str) -> str:
    """Returns a docstring's paragraphs, each on one line."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def fill(text: str, name: str, content: str) -> str | None:
    """Returns a page with what is between `<!-- generated: name -->` and `<!-- end -->` replaced; None without them."""
    pattern = re.compile(rf"(<!-- generated: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        return None
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)
