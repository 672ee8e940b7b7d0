"""Rows of the report against planted figures: what is averaged, paired, counted, and left out."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste import report
from foretaste.errors import RecordError
from foretaste.record import TrialRecord, pack_labels, unpack_labels
from foretaste.report.summary import Summary, summarise
from tests import records_fixture as planted
from tests.records_fixture import CLEAN_RIGHT, RIGHT, TRUTH, N

CLIPPED = "exact, clipped to the clean feature range"


def only(records: list[TrialRecord], *threats: str) -> list[TrialRecord]:
    return [trial for trial in records if trial.threat in threats]


def test_each_row_is_the_mean_over_its_seeds(summary: Summary) -> None:
    assert [(row.attack, row.variant, row.budget) for row in summary.rows] == list(RIGHT)
    for row, right in zip(summary.rows, RIGHT.values(), strict=True):
        cell = row.cells["exact"]
        naive = sum(right) / len(right) / N
        assert cell.clean.value == CLEAN_RIGHT / N
        assert cell.poisoned.value == pytest.approx(naive, abs=1e-12)
        assert cell.change.value == pytest.approx(naive - CLEAN_RIGHT / N, abs=1e-12)
        assert (cell.rows, cell.seeds, row.added) == (N, 3, int(5000 * row.budget))
        assert cell.poisoned.low <= cell.poisoned.value <= cell.poisoned.high
        assert cell.poisoned.low == pytest.approx(cell.clean.value + cell.change.low, abs=1e-12)


def test_the_interval_is_that_of_a_naive_bootstrap_over_rows_and_seeds(
    audit: list[TrialRecord], summary: Summary
) -> None:
    row = next(row for row in summary.rows if row.variant == "features, box" and row.budget == 0.1)
    clean = planted.CLEAN == TRUTH
    after = np.stack([unpack_labels(trial.predictions["exact"]) == TRUTH for trial in row.trials])
    rng = np.random.default_rng(1)
    means = []
    for _ in range(1500):
        rows, seeds = rng.integers(N, size=N), rng.integers(3, size=3)
        means.append(np.mean([after[seed][rows].mean() - clean[rows].mean() for seed in seeds]))
    low, high = np.quantile(means, [0.025, 0.975])
    change = row.cells["exact"].change
    assert change.low == pytest.approx(low, abs=0.003)
    assert change.high == pytest.approx(high, abs=0.003)


def test_a_countermeasure_is_paired_with_the_clean_probe_it_starts_from(summary: Summary) -> None:
    row = next(row for row in summary.rows if row.variant == "pixels, [0,1]" and row.budget == 0.1)
    expected = (sum(RIGHT["exact", "pixels, [0,1]", 0.1]) / 3 + 20 - CLEAN_RIGHT) / N
    assert row.cells[CLIPPED].change.value == pytest.approx(expected, abs=1e-12)
    assert row.cells[CLIPPED].change.method == "paired bootstrap over rows and 3 seeds 0.95"
    assert list(row.cells) == ["exact", "knn", CLIPPED]


def test_success_rate_counts_eligible_pairs_only(summary: Summary) -> None:
    (row,) = summary.weights
    assert len(row.pairs) == 20
    assert (row.successes, row.success.n) == (16, 17)
    # Wilson's interval of 16 out of 17 from its definition: the p with |16/17 - p| = z sqrt(p (1 - p) / 17).
    grid = np.linspace(0, 1, 2_000_001)
    inside = grid[np.abs(16 / 17 - grid) <= 1.959964 * np.sqrt(grid * (1 - grid) / 17)]
    assert (row.success.low, row.success.high) == pytest.approx((inside[0], inside[-1]), abs=2e-6)
    assert (row.base.value, row.base.n) == (3 / 20, 20)
    assert row.changes["exact"].value == pytest.approx(-planted.ENCODER_COST, abs=1e-12)
    assert row.collateral.value == pytest.approx(planted.COLLATERAL, abs=1e-12)
    assert row.failed == 1


def test_failed_and_refused_trials_are_in_no_figure(audit: list[TrialRecord], summary: Summary) -> None:
    without = summarise([trial for trial in audit if trial not in planted.unfit()])
    assert [row.cells for row in without.rows] == [row.cells for row in summary.rows]
    assert without.weights[0].success == summary.weights[0].success
    assert [item.reason for item in summary.failures] == [
        f"AttackError: objective is not finite for class {planted.NASTY}",
        "refused by the referee: only the ledger's tensors changed: 1 more: fc.weight",
    ]
    row = next(row for row in summary.rows if row.failed)
    assert (row.variant, row.budget, row.failed, len(row.commands)) == ("features, box", 0.03, 1, 4)


def test_predictions_win_over_scores_that_contradict_them(audit: list[TrialRecord]) -> None:
    index = next(i for i, trial in enumerate(audit) if trial.variant == "features, box" and trial.budget == 0.03)
    lie = audit[index].scores | {"exact": planted.scores(1600)}
    altered = summarise([*audit[:index], audit[index].model_copy(update={"scores": lie}), *audit[index + 1 :]])
    row = next(row for row in altered.rows if row.variant == "features, box" and row.budget == 0.03)
    assert row.cells["exact"].poisoned.value == pytest.approx(1480 / N)
    assert any("scores differ from the predictions" in warning.text for warning in altered.warnings)


def test_each_seed_is_paired_with_its_own_clean_twin() -> None:
    other = np.where(np.arange(N) < 1500, TRUTH, (TRUTH + 1) % 10)
    second = planted.clean_twin().model_copy(
        update={"trial": "second", "seed": 1, "predictions": {"exact": pack_labels(other)}}
    )
    trials = [t for t in planted.labelled() if t.variant == "features, box" and t.budget == 0.1 and t.seed < 2]
    cell = summarise([planted.clean_twin(), second, *trials]).rows[0].cells["exact"]
    right = RIGHT["exact", "features, box", 0.1]
    assert cell.change.value == pytest.approx(((right[0] - CLEAN_RIGHT) + (right[1] - 1500)) / 2 / N, abs=1e-12)


def test_without_a_clean_twin_the_trials_own_changes_count(audit: list[TrialRecord]) -> None:
    summary = summarise(only(audit, "labelled"))
    cell = next(row for row in summary.rows if row.variant == "features, box" and row.budget == 0.03).cells["exact"]
    assert cell.change.value == pytest.approx((1480 - CLEAN_RIGHT) / N)
    assert cell.change.method == "bootstrap over trials 0.95"
    single = summarise([trial for trial in only(audit, "labelled") if trial.seed == 0]).rows[0].cells["exact"]
    assert single.change.method == "planted"
    verdict = report.render(only(audit, "labelled")).verdict
    assert "The record has no clean twin: clean figures are those that each trial carries." in verdict


def test_records_of_several_audits_are_not_mixed(audit: list[TrialRecord]) -> None:
    other = planted.DATA.model_copy(update={"digest": "other", "name": "svhn"})
    with pytest.raises(RecordError, match=r"one data set.*svhn"):
        report.render([*audit, audit[0].model_copy(update={"data": other})])
    encoder = planted.ENCODER.model_copy(update={"sha256": "other", "name": "dino"})
    with pytest.raises(RecordError, match=r"one encoder.*dino"):
        report.render([*audit, audit[0].model_copy(update={"encoder": encoder})])
    with pytest.raises(RecordError, match="at least one trial"):
        report.render([])


def test_two_trials_with_one_seed_are_pointed_out(audit: list[TrialRecord]) -> None:
    again = next(trial for trial in audit if trial.attack == "label-flip").model_copy(update={"trial": "again"})
    assert any("several trials with seed 0" in warning.text for warning in summarise([*audit, again]).warnings)


def test_warnings_come_once_with_their_trials_and_the_clean_twins_first(audit: list[TrialRecord]) -> None:
    twin = audit[0].model_copy(update={"warnings": ["head is no better than random features"]})
    first, second = summarise([*audit[1:], twin]).warnings
    assert (first.text, first.trials) == ("head is no better than random features", ["clean twin"])
    assert len(second.trials) == 6
    assert "exact (features, box), 1 %, seed 1" in second.trials
