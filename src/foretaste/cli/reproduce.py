"""`foretaste reproduce`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from foretaste.audits.spec import AuditSpec
    from foretaste.studies.spec import Study

STUDIES = ("feature-targeted", "pacl", "defences")


def reproduce(
    name: Annotated[str, typer.Argument(help="The study: feature-targeted, pacl or defences.")],
    plan: Annotated[
        Path | None, typer.Option(help="Its audits as a YAML file; default: a small one on the embedded digits.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the records; default: the study's name.")] = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run code that the plan names; look at it first.")
    ] = False,
    download: Annotated[bool, typer.Option("--download", help="Fetch data sets that the plan asks to fetch.")] = False,
) -> None:
    """Run a study's audits: measure a paper's claims, or what defences are worth.

    The same command continues a study that was interrupted. Exit code 1: some trial failed (it is in its record).
    """
    from foretaste.api.audit import AuditResult, run_spec
    from foretaste.audits import trust
    from foretaste.errors import SpecError
    from foretaste.studies import page
    from foretaste.studies.spec import Study

    if name not in STUDIES:
        raise SpecError(f"reproduce: one of {', '.join(STUDIES)}", got=repr(name))
    source = plan or Path(page.__file__).with_name(f"{name}.yaml")
    study = Study.read(source)
    audits = audits_of(study)
    for part, spec in audits.items():
        trust.check_spec(spec, f"{source}, audit {part}", trust_code=trust_code, download=download)
    if study.study != name:
        raise SpecError(f"{source}: a plan of the study {name}", got=study.study, do="pass another plan")
    folder = out or Path(name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / page.FILE).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    results: list[AuditResult] = []
    for part, spec in audits.items():
        print(f"audit {part} ({len(results) + 1} of {len(audits)})", file=sys.stderr)
        results.append(run_spec(spec, folder / part))
        results[-1].report()
    for path in page.write_study(folder):
        print(path)
    failed = sum(len(result.failures) for result in results)
    if failed:
        print(f"foretaste: {failed} trials failed; the same command tries them again.", file=sys.stderr)
        raise typer.Exit(1)


def audits_of(study: Study) -> dict[str, AuditSpec]:
    """Every audit of a study, checked before any is run.

    Raises:
        SpecError: a key that no audit has, or a value out of its range.
    """
    from foretaste.audits.spec import AuditSpec

    return {name: AuditSpec.make(study.values(name), f"study, audit {name}") for name in study.audits}
