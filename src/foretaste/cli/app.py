"""The commands: the small ones whole, the others by name (`cli.lazy`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretaste.cli.lazy import Commands, stand_in
from foretaste.version import __version__

app = typer.Typer(
    cls=Commands,
    help="Measure, before a model ships, how much poison a pre-trained encoder and the head on top of it can take.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # [n, d] in a help text is not markup
)
stand_in(app)
cache = typer.Typer(help="The features kept on this machine.", rich_markup_mode=None)
app.add_typer(cache, name="cache")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"foretaste {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")
    ] = False,
) -> None:
    pass


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="An attack, probe or method: show its fields.")] = None,
) -> None:
    """Show what there is: attacks, probes, data sets, encoders; or the fields of one attack or probe."""
    from foretaste.cli import listing

    print(listing.everything() if name is None else listing.fields_of(name))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder that an audit wrote.")],
    title: Annotated[str, typer.Option(help="Heading of the report.")] = "",
) -> None:
    """Write the report again from the record alone.

    It makes report.html and report.md from record.jsonl and needs no torch.
    """
    from foretaste.report import write

    for path in write(folder, title=title):
        print(path)


@app.command()
def schema() -> None:
    """Print the JSON schema of a line of record.jsonl."""
    import json

    from foretaste.record import json_schema

    print(json.dumps(json_schema(), indent=2))


@cache.command("clear")
def clear() -> None:
    """Delete all cached features."""
    from foretaste.features.cache import FeatureCache

    store = FeatureCache()
    print(f"freed {store.clear() / 2**20:.1f} MiB in {store.folder}")
