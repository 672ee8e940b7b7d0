"""`foretaste audit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from foretaste.audits import trust
from foretaste.audits.spec import AuditSpec
from foretaste.cli import flags


@flags.with_flags
def audit(
    file: Annotated[Path | None, typer.Argument(help="An audit as a YAML file; flags override it.")] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Run just this trial (its identity in the record).", rich_help_panel=flags.RUN),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show the resolved audit, the number of trials and the time; run nothing.",
            rich_help_panel=flags.RUN,
        ),
    ] = False,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for record and report; default foretaste-audit.", show_default=False, rich_help_panel=flags.OUT
        ),
    ] = Path("foretaste-audit"),
    trust_code: Annotated[
        bool,
        typer.Option(
            "--trust-code",
            help="Run the code that FILE names (FILE.py:CLASS, package.module:CLASS, encoders); what is typed here is "
            "run anyway.",
            rich_help_panel=flags.RUN,
        ),
    ] = False,
    **typed: Any,
) -> None:
    """Audit an encoder and its head, and write the report. Without arguments: the embedded digits audit.

    The same command continues an audit that was interrupted. Exit code 1: some trial failed (it is in the record).
    """
    said = flags.values_of(typed)
    values = {} if file is None else AuditSpec.read(file).model_dump(exclude_unset=True)
    trust.check(values, str(file), trust_code=trust_code, download="download" in said, said=said)
    spec = AuditSpec.make(flags.over(values, said), "audit" if file is None else str(file))
    if dry_run:
        _show_plan(spec)
    else:
        _run(spec, out, only)


def _show_plan(spec: AuditSpec) -> None:
    from foretaste.api.audit import estimate_spec
    from foretaste.progress import duration

    found = estimate_spec(spec)
    print(found.spec.to_yaml(), end="")
    print(f"# {found.trials} trials, about {duration(found.seconds)} on this machine")


def _run(spec: AuditSpec, out: Path, only: str | None) -> None:
    from foretaste.api.audit import run_spec

    result = run_spec(spec, out, only)
    page = result.report()
    print(_verdict(page.with_suffix(".md")))
    print(f"\nreport: {page}")
    if result.failures:
        print(
            f"foretaste: {len(result.failures)} of {len(result.records)} trials failed; the report says why, "
            "and the same command tries them again.",
            file=sys.stderr,
        )
        raise typer.Exit(1)


def _verdict(report: Path) -> str:
    """The plain words on top of the report: its recommendation and its verdict."""
    lines = report.read_text(encoding="utf-8").splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("## ")]
    end = next((number for number in heads if number > lines.index("## Verdict")), len(lines))
    return "\n".join(line for line in lines[heads[0] : end] if line and not line.startswith("## "))
