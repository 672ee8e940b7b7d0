"""The claims of a paper, from planted entries: which hold, which do not, and by how much."""

from __future__ import annotations

import pytest

from foretaste.record import Estimate
from foretaste.studies.claims import Entry, claims, goals


def entry(attack: str, drop: float, *, variant: str = "features, box", budget: float = 0.1, **fields: object) -> Entry:
    estimate = Estimate(value=drop, low=drop - 0.01, high=drop + 0.01, n=100, method="test")
    clipped = fields.pop("clipped", None)
    return Entry(
        encoder=str(fields.get("encoder", "e")),
        data=str(fields.get("data", "d")),
        scenario=str(fields.get("scenario", "same data")),
        attack=attack,
        variant=variant,
        budget=budget,
        knowledge="full",
        clean=float(str(fields.get("clean", 0.8))),
        drop=estimate,
        clipped=None if clipped is None else estimate.model_copy(update={"value": clipped}),
        seeds=5,
    )


PIXELS, NEAR = "pixels, [0, 1]", "pixels, 8/255"


def planted(budgets: tuple[float, ...] = (0.03, 0.1, 0.5)) -> list[Entry]:
    """Drops that grow with the budget; each claim of the paper holds by construction."""
    found = []
    for b in budgets:
        for scenario, factor in (("same data", 1.0), ("transfer", 2.0)):
            where = {"budget": b, "scenario": scenario, "data": scenario}
            f = factor * b
            found += [
                entry("label-flip", 0.01 * f, variant="", **where),
                entry("gradient-canceling", 0.10 * f, **where),
                entry("feature-targeted", 0.12 * f, **where),
                entry("exact", 0.50 * f, **where),
                entry("tgda", 0.2 * f, variant=PIXELS, clipped=0.02 * f, **where),
                entry("gradient-canceling", 0.1 * f, variant=PIXELS, clipped=0.01 * f, **where),
                entry("feature-targeted", 0.05 * f, variant=f"{PIXELS}, by matching", **where),
                entry("exact", 0.5 * f, variant=PIXELS, **where),
                entry("tgda", 0.1 * f, variant=f"{NEAR}, labels random", **where),
                entry("emn", 0.01 * f, variant=f"{NEAR}, replaces rows", **where),
                entry("exact", 0.15 * f, variant=NEAR, **where),
            ]
    return found


def test_planted_claims_hold_and_their_reverse_does_not() -> None:
    found = claims(planted())
    assert [claim.verdict for claim in found] == ["holds"] * 6
    assert [claim.comparisons for claim in found] == [10 * 3, 10 * 3, 6, 6, 6, 6]
    swapped = [
        Entry(**{**vars(e), "scenario": {"transfer": "same data", "same data": "transfer"}[e.scenario]})
        for e in planted()
    ]
    assert claims(swapped)[0].verdict == "does not hold here (the opposite does)"
    assert claims([])[0].verdict == "not measured"
    assert claims(planted((0.1,)))[2].verdict == "too few comparisons to say"


def test_figures_are_means_of_differences_and_ratios_of_sums() -> None:
    entries = planted()
    total = sum(b * f for b in (0.03, 0.1, 0.5) for f in (1, 2))
    found = claims(entries)
    assert found[2].found is not None
    assert found[2].found.value == pytest.approx((0.2 - 0.01) * total / 6)
    assert found[3].found is not None
    assert found[3].found.value == pytest.approx((0.05 - 0.02) * total / 6), "after clipping, where it changes anything"
    own = goals(entries)
    values = [claim.found.value for claim in own if claim.found]
    assert values == pytest.approx([x for x in (0.5 / 0.12, 0.5 / 0.2, 1.5, 0.05 / 0.12) for _ in range(3)])
    assert [claim.verdict for claim in own] == ["met"] * 6 + ["missed"] * 6
    assert own[0].text.endswith("at 3 %") and own[0].comparisons == 2


def test_a_share_of_the_clean_accuracy() -> None:
    """Half the points of a pipeline with a quarter of the accuracy are twice the share."""
    own = [entry("exact", 0.4, budget=b, clean=0.8) for b in (0.1, 0.2, 0.3)]
    other = [entry("exact", 0.2, budget=b, clean=0.2, scenario="transfer", data="t") for b in (0.1, 0.2, 0.3)]
    points, share, *_ = claims([*own, *other])
    assert points.verdict.startswith("does not hold here (the opp") and share.verdict == "holds"
    assert share.found is not None and share.found.value == pytest.approx(1.0 - 0.5)


def test_spaces_of_variants() -> None:
    for variant, space in {
        "features, box": "features",
        "features, ball, labels random": "features",
        "pixels, [0, 1]": "[0, 1]",
        "pixels, [0, 1], by matching": "[0, 1]",
        "generator, [0, 1]": "[0, 1]",
        "pixels, 8/255, replaces rows": "8/255",
        "": "",
    }.items():
        assert entry("tgda", 0.1, variant=variant).space == space
