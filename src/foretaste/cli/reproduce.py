"""`foretaste reproduce`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

STUDIES = ("feature-targeted", "pacl", "defences")


def reproduce(
    name: Annotated[str, typer.Argument(help="The study: feature-targeted, pacl or defences.")],
    plan: Annotated[
        Path | None, typer.Option(help="Its audits as a YAML file; default: a small one on the embedded digits.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the records; default: the study's name.")] = None,
) -> None:
    """Run a study's audits: measure a paper's claims, or what defences are worth.

    The same command continues a study that was interrupted. Exit code 1: some trial failed (it is in its record).
    """
    from rich.console import Console

    from foretaste.audit.runner import Outcome, run
    from foretaste.cli.progress import AuditProgress
    from foretaste.errors import SpecError
    from foretaste.report import write
    from foretaste.report.study import write_study
    from foretaste.sweep.study import Study

    if name not in STUDIES:
        raise SpecError(f"reproduce: one of {', '.join(STUDIES)}", got=repr(name))
    source = plan or Path(__file__).parents[1] / "studies" / f"{name}.yaml"
    study = Study.read(source)
    if study.study != name:
        raise SpecError(f"{source}: a plan of the study {name}", got=study.study, do="pass another plan")
    folder = out or Path(name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    outcomes: list[Outcome] = []
    for part in study.audits:
        print(f"audit {part} ({len(outcomes) + 1} of {len(study.audits)})", file=sys.stderr)
        with AuditProgress(Console(stderr=True)) as progress:
            outcomes.append(run(study.spec(part), folder / part, progress))
        write(folder / part)
    for path in write_study(folder):
        print(path)
    failed = sum(len(outcome.failures) for outcome in outcomes)
    if failed:
        print(f"foretaste: {failed} trials failed; the same command tries them again.", file=sys.stderr)
        raise typer.Exit(1)
