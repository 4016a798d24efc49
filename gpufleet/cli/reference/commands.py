"""The reference of a command line, from its typer application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.main import get_command

from gpufleet.cli.reference.markdown import code, flat, page, table

# typer brings a click of its own, under a private name in some versions, so there is no type to name here.
Command = Any


def commands(app: typer.Typer) -> Iterator[tuple[str, Command, Any]]:
    """Returns full name, command and context of every command, in the order of `--help`."""
    root = get_command(app)
    yield from _walk(root, typer.Context(root, info_name=root.name))


def _walk(command: Command, context: Any) -> Iterator[tuple[str, Command, Any]]:
    yield context.command_path, command, context
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from _walk(child, typer.Context(child, info_name=name, parent=context))


def cli_page(app: typer.Typer) -> str:
    """Returns the page about an application."""
    (name, root, context), *rest = commands(app)
    blocks = [flat(root.help or ""), flat(root.epilog or ""), _parameters(root, context)]
    for path, command, inner in rest:
        usage = " ".join(command.collect_usage_pieces(inner))
        blocks += [f"## {path}", flat(command.help or ""), f"    {path} {usage}", _parameters(command, inner)]
    return page(f"`{name}`: the command line", *(block for block in blocks if block))


def _parameters(command: Command, context: Any) -> str:
    rows = []
    for parameter in command.params:
        if parameter.name == "help" or getattr(parameter, "hidden", False):
            continue
        record = parameter.get_help_record(context)
        if record is None:
            name, text = parameter.make_metavar(context), ""
        else:
            name, text = record
        if getattr(parameter, "envvar", None) and "env var" not in text:
            text += f" [environment: {parameter.envvar}]"
        rows.append((code(name.strip("[]") if record is None else name), text))
    return table(("parameter", "meaning"), rows) if rows else ""
