"""Aggregation against computations by other means: loops, scipy, and figures planted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from foretaste.record import Check, Estimate, ProbeScores, TargetScores, TrialError, TrialRecord, pack_labels
from foretaste.report import aggregate
from foretaste.report.aggregate import Twins, pair
from foretaste.statistics import wilson
from tests import records_fixture as planted

LABELS = np.arange(40) % 4


def estimate(value: float, wide: float = 0.1, n: int = 50) -> Estimate:
    return Estimate(value=value, low=value - wide, high=value + 2 * wide, n=n, method="planted")


def guess(right: Any) -> np.ndarray:
    """Labels that are right where the mask says so."""
    return np.where(right, LABELS, (LABELS + 1) % 4)


def trial(attack: str = "exact", seed: int = 0, right: Any = None, **fields: Any) -> TrialRecord:
    """One trial of 40 test rows; the clean head gets the first 32 right."""
    if right is not None:
        fields["predictions"] = {"exact": pack_labels(guess(right))}
        fields["scores"] = {"exact": ProbeScores(clean=wilson(32, 40), poisoned=wilson(int(np.sum(right)), 40))}
    return planted.trial(attack=attack, seed=seed, command="", **{"threat": "labelled", **fields}).model_copy(
        update={"trial": f"{attack}{seed}{fields.get('budget')}{fields.get('variant')}"}
    )


def twin(seed: int = 0, right: int = 32) -> TrialRecord:
    found = trial("none", seed, np.arange(40) < right, threat="clean", truth=pack_labels(LABELS))
    return found.model_copy(update={"scores": {"exact": ProbeScores(clean=wilson(right, 40))}})


def target(together: int = 1, *, counts: bool = True) -> TargetScores:
    return TargetScores(
        index=1,
        true_class=0,
        target_class=1,
        clean_prediction=0,
        poisoned_prediction=1,
        eligible=counts,
        success=True,
        clean_success=False,
        collateral=wilson(1, 10),
        together=together,
    )


def test_groups_keep_the_order_of_attacks_and_sort_budgets_and_seeds() -> None:
    trials = [
        trial("b", 1, variant="v", budget=0.1),
        trial("a", 0, budget=0.03),
        trial("b", 0, variant="v", budget=0.1),
        trial("b", 0, budget=0.1),
        trial("b", 0, variant="v", budget=0.01),
        trial("a", 0, budget=0.01),
    ]
    found = [[(t.attack, t.variant, t.budget, t.seed) for t in group] for group in aggregate.by_attack(trials)]
    assert found == [
        [("b", "v", 0.01, 0)],
        [("b", "v", 0.1, 0), ("b", "v", 0.1, 1)],
        [("a", "", 0.01, 0)],
        [("a", "", 0.03, 0)],
        [("b", "", 0.1, 0)],
    ]
    assert aggregate.by_attack([]) == [] and aggregate.grouped([], len) == {}
    assert aggregate.keys_of([["b", "a"], [], ["a", "c"]]) == ["b", "a", "c"]


def test_a_run_counts_once_where_pairs_share_it_and_pairs_of_their_own_count_each() -> None:
    shared = [
        trial("p", k, target=target(2), digests={"poisoned encoder": f"run{k // 2}"}, threat="weights")
        for k in range(4)
    ]
    alone = [trial("p", k, target=target(), digests={"poisoned encoder": "same"}, threat="weights") for k in (7, 8)]
    assert [t.seed for t in aggregate.one_per_run([*shared, *alone])] == [0, 2, 7, 8]
    pairs = [*shared[:1], trial("p", 5, target=target(counts=False)), trial("p", 6)]
    assert [t.seed for t in aggregate.eligible(pairs)] == [0]


def test_a_trial_is_in_no_figure_if_it_failed_or_was_refused() -> None:
    failed = trial(status="failed", error=TrialError(type="AttackError", message="NaN"))
    assert aggregate.failure(failed) == "AttackError: NaN"
    assert aggregate.failure(trial(status="failed")) == "failed without a message"
    checks = [Check(name="budget", ok=False, found="9 rows"), Check(name="range", ok=True, found="in [0, 1]")]
    assert aggregate.failure(trial(referee=checks)) == "refused by the referee: budget: 9 rows"
    assert aggregate.failure(trial(referee=checks[1:])) == ""


def test_the_headline_is_the_first_score() -> None:
    scores = {"knn": ProbeScores(clean=wilson(3, 4)), "exact": ProbeScores(clean=wilson(1, 4))}
    assert aggregate.headline(trial(scores=scores)) == scores["knn"]
    assert aggregate.headline(trial()) is None and aggregate.headline(None) is None


@pytest.mark.parametrize(("yes", "n"), [(0, 5), (3, 5), (17, 20), (20, 20)])
def test_shares_have_wilsons_interval_over_their_outcomes(yes: int, n: int) -> None:
    found = aggregate.share([k < yes for k in range(n)])
    expected = binomtest(yes, n).proportion_ci(0.95, method="wilson")
    assert found is not None
    assert (found.value, found.n) == (yes / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    again = aggregate.mean_share([float(k < yes) for k in range(n)])
    assert again is not None
    assert (again.value, again.low, again.high, again.n) == pytest.approx((found.value, found.low, found.high, n))


def test_nothing_has_no_share_no_mean_and_no_least() -> None:
    assert aggregate.share([]) is None and aggregate.mean_share([]) is None and aggregate.mean([]) is None
    assert aggregate.mean_over_trials([None]) is None and aggregate.mean_as_wide([None, None]) is None
    assert aggregate.lowest([(None, "a")]) is None and aggregate.paired([], [np.ones(3, bool)]) is None


def test_a_mean_over_trials_has_a_bootstrap_over_them_and_one_trial_keeps_its_own() -> None:
    values = [0.1, 0.5, 0.2, 0.9, 0.4]
    found = aggregate.mean_over_trials([estimate(value) for value in values] + [None])
    rng = np.random.default_rng(3)
    means = [sum(values[k] for k in rng.integers(5, size=5)) / 5 for _ in range(4000)]
    assert found is not None
    assert found.value == pytest.approx(0.42) and found.n == 5
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.02)
    alone = estimate(0.3, n=1000)
    assert aggregate.mean_over_trials([None, alone]) is alone
    assert aggregate.mean([0.5, 0.25]) == 0.375


def test_a_mean_as_wide_as_its_trials_does_not_shrink_with_their_number() -> None:
    found = aggregate.mean_as_wide([estimate(0.2, 0.05, 70), None, estimate(0.6, 0.15, 90)])
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.4, 0.3, 0.6))
    assert (found.n, found.method) == (70, "planted, mean of the trials")


def test_the_least_is_the_first_of_equal_ones() -> None:
    found = [
        (estimate(0.5), "a"),
        (None, "b"),
        (estimate(0.3), "c"),
        (estimate(0.3, 0.0), "d"),
        (estimate(0.4, 0.9), "e"),
    ]
    least = aggregate.lowest(found)
    assert least is not None
    assert least[1] == "c"


def test_rows_that_are_right_need_predictions_of_the_same_rows() -> None:
    mask = np.arange(40) % 3 == 0
    one = trial(right=mask)
    assert (aggregate.right(one, "exact", LABELS) == mask).all()
    assert aggregate.right(one, "knn", LABELS) is None and aggregate.right(one, "exact", LABELS[:-1]) is None


def test_a_paired_change_is_that_of_a_naive_bootstrap_and_needs_as_many_seeds_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    before = [rng.random(300) < 0.8 for _ in range(3)]
    after = [one & (rng.random(300) < 0.7) for one in before]
    found = aggregate.paired(before, after)
    means = []
    for _ in range(1500):
        rows, seeds = rng.integers(300, size=300), rng.integers(3, size=3)
        means.append(np.mean([after[s][rows].mean() - before[s][rows].mean() for s in seeds]))
    assert found is not None
    assert found.value == pytest.approx(np.mean([a.mean() - b.mean() for a, b in zip(after, before, strict=True)]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.01)
    assert found.n == 300
    cut = aggregate.paired(before[:1], after)
    assert cut is not None
    assert cut.value == pytest.approx(after[0].mean() - before[0].mean())


def test_each_seed_is_paired_with_its_twin_and_the_mean_is_over_seeds() -> None:
    masks = [np.arange(40) < 20, np.arange(40) < 24]
    cell, agrees = pair([trial(seed=s, right=m) for s, m in enumerate(masks)], "exact", Twins([twin(0), twin(1)]))
    assert agrees and (cell.rows, cell.seeds) == (40, 2)
    assert (cell.clean.value, cell.poisoned.value) == pytest.approx((32 / 40, 22 / 40))
    assert cell.change.value == pytest.approx(-10 / 40)
    assert cell.poisoned.low == pytest.approx(32 / 40 + cell.change.low)


def test_a_seed_without_a_twin_of_its_own_has_the_first_one() -> None:
    trials = [trial(seed=s, right=np.arange(40) < 20) for s in (0, 1, 2)]
    cell, _ = pair(trials, "exact", Twins([twin(0), twin(1, 36)]))
    assert cell.change.value == pytest.approx((20 - 32 + 20 - 36 + 20 - 32) / 3 / 40)


def test_a_countermeasure_that_changes_the_clean_rows_is_not_paired_with_the_clean_probe() -> None:
    key, one = "exact, clipped", trial(right=np.arange(40) < 20)
    for clean, change in ((32, -12 / 40), (30, -10 / 40)):
        scores = {key: ProbeScores(clean=wilson(clean, 40), poisoned=wilson(20, 40))}
        clipped = one.model_copy(update={"scores": scores, "predictions": {key: one.predictions["exact"]}})
        cell, _ = pair([clipped], key, Twins([twin()]))
        assert cell.change.value == pytest.approx(change)
        assert cell.change.method.startswith("paired" if clean == 32 else "bootstrap over trials")


def test_a_score_that_its_predictions_contradict_is_pointed_out_and_not_used() -> None:
    one = trial(right=np.arange(40) < 20)
    other = one.model_copy(update={"scores": {"exact": ProbeScores(clean=wilson(32, 40), poisoned=wilson(30, 40))}})
    cell, agrees = pair([other], "exact", Twins([twin()]))
    assert not agrees and cell.poisoned.value == 0.5


def test_without_predictions_the_recorded_changes_are_averaged_over_trials() -> None:
    bare = [
        trial(seed=s, right=np.arange(40) < n).model_copy(update={"predictions": {}}) for s, n in enumerate((20, 28))
    ]
    cell, agrees = pair(bare, "exact", Twins([twin()]))
    assert agrees and cell.change.value == pytest.approx(-8 / 40)
    assert (cell.change.n, cell.change.method) == (2, "bootstrap over trials 0.95")
    own = estimate(-0.3)
    said = ProbeScores(clean=wilson(32, 40), poisoned=wilson(20, 40), change=own)
    alone, _ = pair([bare[0].model_copy(update={"scores": {"exact": said}})], "exact", Twins([]))
    assert alone.change is own
