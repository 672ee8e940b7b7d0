"""The report of attacks on one image by labelled rows and pre-training images, against planted figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foretaste import report, statistics
from foretaste.record import Ledger, ProbeScores, Steered, TargetScores, TrialRecord, digest_of
from foretaste.report.summary import summarise
from foretaste.report.tables import targeted
from foretaste.report.threats import THREATS
from tests import records_fixture as planted

PAIRS = 6


def share(k: int, n: int) -> Any:
    return statistics.wilson(k, n)


def steered(k: int, success: bool, **more: Any) -> Steered:
    """Pair k: the first one is not eligible, since the clean twin gives it the wanted class already."""
    return Steered(
        clean_prediction=1 if k == 0 else 0,
        poisoned_prediction=1 if success else 0,
        eligible=k > 0,
        success=success,
        clean_success=k == 0,
        collateral=share(20 * k, planted.N),
        neighbours=share(k, 20),
        augmented=share(2 * k, 16),
        clean_augmented=share(1, 16),
        **more,
    )


def trial(k: int, threat: str, budget: float | None, together: int = 1) -> TrialRecord:
    head, other = steered(k, k < 4), steered(k, k < 2)
    run = k // together
    return planted.trial(
        threat=threat,
        attack="fake",
        budget=budget,
        seed=k,
        trial_of=f"{threat} {budget} {k}",
        command=f"foretaste audit --only {threat}-{k}",
        scores={"exact": ProbeScores(clean=share(1600, 2000), poisoned=share(1600 - 20 * run, 2000))},
        target=TargetScores(
            **dict(head), index=k, true_class=0, target_class=1, together=together, probes={"exact": head, "knn": other}
        ),
        digests={"poisoned encoder": digest_of(run)} if threat != "targeted" else {},
        ledger=Ledger(changed=[], added=3, passes=100 * (run + 1)),
    )


def audit(threat: str, budgets: list[float | None], together: int = 1) -> list[TrialRecord]:
    found = [trial(k, threat, budget, together) for budget in budgets for k in range(PAIRS)]
    return [planted.clean_twin(), *found]


def test_a_row_is_one_attack_at_one_budget_over_its_pairs() -> None:
    rows = summarise(audit("targeted", [0.01, 0.1])).targeted
    assert [row.budget for row in rows] == [0.01, 0.1] and [len(row.pairs) for row in rows] == [PAIRS] * 2
    head, knn = rows[0].head, rows[0].probes["knn"]
    assert (head.eligible, head.successes, knn.successes) == (5, 3, 1)
    assert head.success == statistics.wilson(3, 5) and head.base == statistics.wilson(1, 6)
    assert head.collateral.value == pytest.approx(np.mean([20 * k / planted.N for k in range(PAIRS)]))
    assert head.neighbours.value == pytest.approx(np.mean(np.arange(PAIRS) / 20))
    assert head.augmented.value == pytest.approx(np.mean(2 * np.arange(1, PAIRS) / 16)), "over eligible pairs"
    assert head.clean_augmented.value == 1 / 16


def test_pairs_that_share_a_run_count_once_in_its_accuracy_and_cost() -> None:
    (row,) = summarise(audit("pretraining", [0.1], together=2)).pretraining
    assert row.runs == 3 and row.passes == 200
    assert row.changes["exact"].value == pytest.approx(-np.mean([0, 20, 40]) / 2000)
    assert row.changes["exact"].n == 3 and row.clean.value == pytest.approx(0.8)
    (alone,) = summarise(audit("pretraining", [0.1])).pretraining
    assert alone.runs == 6 and alone.changes["exact"].value == pytest.approx(-50 / 2000)


def test_threats_never_share_a_table() -> None:
    records = audit("targeted", [0.1]) + audit("pretraining", [0.1], 2)[1:] + audit("weights", [None])[1:]
    summary = summarise(records)
    assert [len(rows) for rows in (summary.weights, summary.targeted, summary.pretraining)] == [1, 1, 1]
    found = report.render(records)
    for threat in THREATS:
        table = targeted.table(threat, threat.rows(summary))
        assert len(table.lines) == 1 and f'id="{threat.key}"' in found.html and f"## {threat.title}" in found.markdown
        assert len(table.lines[0].cells) == len(table.columns)
        judged = targeted.by_probe(threat, threat.rows(summary))
        assert [line.cells[2:5] for line in judged.lines] == [["exact", "5", "3"], ["knn", "5", "1"]]
        assert f'id="{threat.key}-probes"' in found.html
        assert all(len(line.cells) == len(judged.columns) for line in judged.lines)
    cells = dict(zip(table.columns, table.lines[0].cells, strict=True))
    assert cells["share"] == "60 % [23, 88]" and cells["had it before"] == "1 of 6" and cells["runs"] == "3"
    assert cells["budget"] == "10 %" and cells["images through the encoder"] == "200"
    assert cells["accuracy without poison"].startswith("80.0 [") and cells["copies before"].startswith("6.2 [")
    lines = [line for line in found.verdict if "could be steered" in line]
    assert [line.partition("could be steered by ")[2].partition(", at")[0] for line in lines] == [
        "editing the encoder",
        "10 % of poisoned rows",
        "10 % of poisoned pre-training images",
    ]
    assert all(line.startswith("3 of 5 chosen images (60 % [23, 88])") for line in lines)
    assert "the encoder that went on learning without poison already gave the wanted class for 1 of 6" in lines[2]


def test_threats_that_were_no_part_of_the_audit_are_not_spoken_of() -> None:
    found = report.render(planted.audit())
    for threat in THREATS[1:]:
        assert threat.title not in found.html and threat.title not in found.markdown
        assert not any(threat.title in line for line in found.verdict)


def test_the_verdict_says_when_the_references_are_training_rows() -> None:
    records = [
        one.model_copy(update={"spec": {"base": {"references": "training"}}}) for one in audit("weights", [None])
    ]
    assert any("are training rows of the head" in line for line in report.render(records).verdict)
    assert not any("are training rows" in line for line in report.render(audit("weights", [None])).verdict)


def test_records_from_before_these_figures_are_read_as_they_were() -> None:
    old = planted.weights()[0].model_dump(mode="json")
    for key in ("neighbours", "augmented", "clean_augmented", "probes", "together"):
        del old["target"][key]
    again = TrialRecord.model_validate(old)
    assert again.target.probes == {} and again.target.neighbours is None and again.target.together == 1
    (row,) = summarise([again]).weights
    assert row.head.neighbours is None and targeted.by_probe(THREATS[0], [row]) is None
    assert "neighbours" not in targeted.table(THREATS[0], [row]).columns
