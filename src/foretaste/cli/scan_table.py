"""What `foretaste scan` prints: verdicts, then what changed and which images stand out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from foretaste.defences.scans.report import ScanReport


def show(report: ScanReport, console: Console, top: int) -> None:
    """Print a report.

    Args:
        report: of a scan.
        console: where to.
        top: most rows of a table of tensors or images.
    """
    images = "" if report.data is None else f", {report.data.rows} {report.data.part} images of {report.data.name}"
    console.print(f"{report.suspect.name} ({report.suspect.architecture}){images}", markup=False, soft_wrap=True)
    verdicts = _table(
        "Verdicts", ["scan", "score", f"clean ({len(report.null)})", "false-alarm rate", "original's", "verdict"]
    )
    for result in report.scans:
        null = result.null_scores
        span = f"{_number(min(null))} to {_number(max(null))}" if null else "none"
        rates = ["-" if rate is None else f"{rate:.2g}" for rate in (result.false_alarm_rate, result.original_rate)]
        verdicts.add_row(result.scan, _number(result.score), span, *rates, result.verdict)
    tables = [verdicts, *(table for one in report.scans for table in _evidence(one.scan, one.evidence, top))]
    for table in tables:
        console.print()
        # Not left to the table: it breaks the title at its own width.
        console.print(table.title or "", style="bold", soft_wrap=True)
        table.title = None
        if table.columns:
            console.print(table)
    if report.notes:
        console.print()
    for note in report.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def _evidence(scan: str, evidence: dict[str, Any], top: int) -> list[Table]:
    if scan == "drift":
        changed = evidence["changed"]
        tensors = _table(
            f"drift: {len(changed)} of {evidence['tensors']} tensors changed", ["tensor", "relative change (L2)"]
        )
        for row in changed[:top]:
            tensors.add_row(escape(row["name"]), f"{row['relative']:.3g}")
        alike = _table("drift: likeness of activations (linear CKA, 1: the same)", ["block", "CKA"])
        for name, value in evidence["cka"].items():
            alike.add_row(escape(name), f"{value:.4f}")
        moved = _table(
            f"drift: images that moved most (median gain {evidence['median_gain']:.3f})",
            ["index", "label", "towards", "gain", "cosine before", "cosine after"],
        )
        for row in evidence["top"][:top]:
            figures = [f"{row[key]:.3f}" for key in ("gain", "cosine_before", "cosine_after")]
            moved.add_row(str(row["index"]), escape(row["label"]), escape(row["towards"]), *figures)
        return [*([tensors] if changed else []), alike, moved]
    if scan == "neighbours":
        table = _table(
            f"neighbours: images that stand out (mean {evidence['mean_disagreement']:.3f})",
            ["index", "label", "towards", "disagreement"],
        )
        for row in evidence["top"][:top]:
            table.add_row(str(row["index"]), escape(row["label"]), escape(row["towards"]), f"{row['score']:.3f}")
        return [table]
    if scan == "weight-statistics":
        table = _table("weight-statistics: most unusual", ["tensor", "statistic", "deviation"])
        for row in evidence["top"][:top]:
            table.add_row(escape(row["tensor"]), row["statistic"], f"{row['deviation']:.3g}")
        return [table]
    if scan == "decree":
        reached = f"PL1 {evidence['pl1']:.3f}" if evidence["reached"] else "no trigger found"
        return [_table(f"decree: {reached}, mean cosine {evidence['similarity']:.3f}", [])]
    return []


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name == "scan")  # whose names break at their hyphen
    return table


def _number(value: float) -> str:
    return f"{value:.3g}"
