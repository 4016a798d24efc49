"""`python -m gpufleet.cli.reference DOCS [--check]`: writes the generated pages, or says which are not up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gpufleet.cli.reference.pages import PageError, pages


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 where `--check` finds differences, or 2 where a page has no place for what is generated."""
    parser = argparse.ArgumentParser(prog="python -m gpufleet.cli.reference", description=__doc__)
    parser.add_argument("docs", type=Path, help="the folder of the pages; `services` is next to it")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if something would change")
    options = parser.parse_args(arguments)
    try:
        made = pages(options.docs)
    except PageError as error:
        return _say(str(error), 2)
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if options.check:
        return _say(f"not up to date, run `make docs`: {', '.join(map(str, stale))}", 1) if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[path], encoding="utf-8")
        _say(f"wrote {path}", 0)
    return 0


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
