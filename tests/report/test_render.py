"""What the report says, against planted figures: numbers, verdict, and what it does when parts are missing."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest

from foretaste import report
from foretaste.errors import RecordError
from foretaste.record import Estimate, ProbeScores, TrialRecord, pack_labels, unpack_labels
from foretaste.report import details, numbers
from foretaste.report.summary import Summary, summarise
from tests import records_fixture as planted
from tests.records_fixture import CLEAN_RIGHT, RIGHT, TRUTH, N

CLIPPED = "exact, clipped to the clean feature range"


@pytest.fixture(scope="module")
def audit() -> list[TrialRecord]:
    return planted.audit()


@pytest.fixture(scope="module")
def summary(audit: list[TrialRecord]) -> Summary:
    return summarise(audit)


@pytest.fixture(scope="module")
def rendered(audit: list[TrialRecord]) -> report.Report:
    return report.render(audit)


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


def test_verdict_has_the_planted_numbers(rendered: report.Report) -> None:
    verdict = rendered.verdict
    assert verdict[2].startswith("10 % of poisoned rows can take accuracy from 83.1 to 39.7 % [")
    assert verdict[2].endswith("(exact, pixels, [0,1]; n = 2,000 test rows, 3 seeds).")
    assert "exact (features, box) 60.6 [" in verdict[3]
    assert verdict[3].index("exact (features, box)") < verdict[3].index("label-flip 82.5 [")
    assert "clipped to the clean feature range 40.7 [" in verdict[4]
    assert verdict[5].startswith(
        "16 of 17 chosen images (94 % [73, 99]) could be steered by editing the encoder, at 0.3 points of accuracy ["
    )
    assert "the clean encoder already gave the wanted class for 3 of 20" in verdict[5]
    assert "random features 31.2 %; chance 10.4 %" in verdict[6]
    assert verdict[7] == "Of 50 trials, 1 failed and 1 was refused by the referee: listed below, and in no figure."
    assert verdict[8] == "1 warning limits what these figures mean: exact: solve residual 3e-04 is above 1e-04."


def test_verdict_for_one_attack_at_one_budget(audit: list[TrialRecord]) -> None:
    records = [t for t in audit if t.threat == "clean" or (t.variant == "features, box" and t.budget == 0.03)]
    verdict = report.render(records[:-1]).verdict
    assert verdict[0].startswith("3 % of poisoned rows can take accuracy from 83.1 to 74.0 % [7")
    assert verdict[0].endswith("(exact, features, box; n = 2,000 test rows, 3 seeds).")
    assert not any("other attacks" in line for line in verdict)
    assert "No attack on the encoder's weights was part of this audit." in verdict


def test_verdict_does_not_claim_a_drop_that_the_test_rows_cannot_show(audit: list[TrialRecord]) -> None:
    verdict = report.render(
        [t for t in audit if t.threat == "clean" or (t.attack, t.budget) == ("label-flip", 0.03)]
    ).verdict
    assert verdict[0].startswith("3 % of poisoned rows did not lower accuracy measurably: 83.1 % before, 83.0 % [")


@pytest.mark.parametrize(("threat", "noun"), [("labelled", "labelled rows"), ("weights", "weights")])
def test_verdict_when_everything_failed(audit: list[TrialRecord], threat: str, noun: str) -> None:
    failed = [trial.model_copy(update={"status": "failed", "error": None}) for trial in only(audit, threat)]
    rendered = report.render([planted.clean_twin(), *failed])
    line = next(line for line in rendered.verdict if "nothing follows" in line)
    assert noun in line
    assert line.endswith(f"{len(failed)} trials failed.")


def test_verdict_without_eligible_pairs(audit: list[TrialRecord]) -> None:
    first = [trial for trial in only(audit, "weights") if trial.target and not trial.target.eligible]
    (line,) = [text for text in report.render([planted.clean_twin(), *first]).verdict if "eligible" in text]
    assert line.startswith("None of the 3 chosen images of pacl is eligible")


def test_verdict_when_only_the_clean_twin_ran() -> None:
    verdict = report.render([planted.clean_twin()]).verdict
    assert verdict[:2] == [
        "No attack on the labelled rows was part of this audit.",
        "No attack on the encoder's weights was part of this audit.",
    ]


def test_a_gain_of_accuracy_is_not_called_a_cost(audit: list[TrialRecord]) -> None:
    better = {"exact": ProbeScores(clean=_sure(0.8), poisoned=_sure(0.81))}
    trials = [trial.model_copy(update={"scores": better}) for trial in only(audit, "weights")]
    assert any("with accuracy moving by +1.0 points [+1.0, +1.0]" in line for line in report.render(trials).verdict)


def _sure(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value, n=10, method="planted")


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


def test_features_from_a_file_need_no_encoder(audit: list[TrialRecord]) -> None:
    rendered = report.render([trial.model_copy(update={"encoder": None}) for trial in only(audit, "clean", "labelled")])
    assert "features from a file" in rendered.html


def test_projection_and_objective_thin_out_evenly(audit: list[TrialRecord]) -> None:
    assert details._thin(5, 10) == [0, 1, 2, 3, 4]
    picked = details._thin(10_000, 100)
    assert (len(picked), picked[0], picked[-1]) == (100, 0, 9999)
    assert max(b - a for a, b in pairwise(picked)) <= 102


def test_many_classes_share_one_marker_and_keep_their_names_on_hover(audit: list[TrialRecord]) -> None:
    exact = next(trial for trial in audit if trial.projection)
    assert exact.projection is not None
    classes = [f"sign {number}" for number in range(43)]
    many = exact.projection.model_copy(update={"clean_labels": [row % 43 for row in range(600)]})
    data = exact.data.model_copy(update={"classes": classes})
    (plot,) = details.projections(summarise([exact.model_copy(update={"projection": many, "data": data})]))
    assert [trace["name"] for trace in plot.data] == ["clean rows", "poison"]
    assert set(plot.data[0]["hovertext"]) == {f"clean: {name}" for name in classes}
    assert len(plot.data[0]["x"]) == len(plot.data[0]["hovertext"]) == 600


@pytest.mark.parametrize(
    ("change", "text"), [(-0.091, "−9.1"), (0.004, "+0.4"), (-0.0004, "0.0"), (0.0, "0.0"), (-0.0006, "−0.1")]
)
def test_points(change: float, text: str) -> None:
    assert numbers.points(change) == text


def test_a_hundred_trials_render_in_a_second(audit: list[TrialRecord]) -> None:
    second = [t.model_copy(update={"trial": f"{t.trial}b", "variant": f"{t.variant} b"}) for t in audit[1:]]
    start = time.process_time()
    report.render([*audit, *second])
    assert time.process_time() - start < 1.0
