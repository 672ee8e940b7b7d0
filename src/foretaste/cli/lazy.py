"""Commands that are imported when they are called, so that `foretaste --help` is fast; and their help by panels."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

WIDEST = 120
"""Columns of a help text where the terminal has them."""

FIELDS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Of a command whose method has fields, which are flags that typer does not know."""

COMMANDS: dict[str, tuple[str, dict[str, Any], str]] = {
    # name: (where it is, its settings, one line)
    "audit": (
        "foretaste.cli.audit:audit",
        {},
        "Audit an encoder and its head, and write the report. Without arguments: the embedded digits audit.",
    ),
    "attack": ("foretaste.cli.attack:attack", FIELDS, "Run one attack alone and write its poison."),
    "scan": ("foretaste.cli.scan:scan", {}, "Look for poison in an encoder."),
    "reproduce": (
        "foretaste.cli.reproduce:reproduce",
        {},
        "Run a study's audits: measure a paper's claims, or what defences are worth.",
    ),
    "pretrain": ("foretaste.cli.pretrain:pretrain", FIELDS, "Pre-train an encoder without labels."),
    "repair": (
        "foretaste.cli.repair:repair",
        FIELDS,
        "Make a new encoder from a suspect one and clean images of your own.",
    ),
}


class Panels(TyperCommand):
    """A command whose help has its options under headings (`rich_help_panel`), as plain text of any width."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then the panels in the order in which they come, then what has none."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        rest: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                panels["Arguments"].append(record)
            elif panel := getattr(parameter, "rich_help_panel", None):
                panels.setdefault(panel, []).append(record)
            else:
                rest.append(record)
        panels["Other" if len(panels) > 1 else "Options"] = rest
        for title, rows in panels.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Commands(TyperGroup):
    """The group of all commands: those in `COMMANDS` stand in for themselves until they are called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names, with its parameters."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, made(name) if name in COMMANDS else command, rest


def stand_in(app: typer.Typer) -> None:
    """Let the help of `app` list the commands."""
    for name, (_, _, line) in COMMANDS.items():
        app.command(name, help=line)(lambda: None)


def made(name: str) -> Any:
    """A command of the table, as typer makes it of its function."""
    place, settings, _ = COMMANDS[name]
    module, _, attribute = place.partition(":")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name, cls=Panels, context_settings={**settings, "max_content_width": WIDEST})(
        getattr(import_module(module), attribute)
    )
    return typer.main.get_command(app)
