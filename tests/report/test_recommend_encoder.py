"""The recommendation about repairs, scans and guards of the encoder, against planted records: every figure by hand."""

from __future__ import annotations

from foretaste import report
from foretaste.record import (
    Scanned,
    TrialRecord,
)
from tests import records_fixture as planted
from tests.report.defended_fixture import FAILED, edits, first, guarded, mended_twin, repaired, scanned


def advice(*records: TrialRecord) -> list[str]:
    return report.render(list(records)).recommendation


def test_repairs_are_ordered_by_what_is_still_steered() -> None:
    """28 pairs count. Still steered: 26 after clp, 2 after distil; Wilson of 2 of 28 is [2, 23] %, of 26 [77, 98]."""
    lines = advice(
        mended_twin(clp=0.001, distil=-0.091),
        *edits(repaired={"clp": first(26), "distil": first(2), "free": first(28)}),
    )
    assert lines == [
        "Of the 28 chosen images that pacl steers, so many are still steered after a repair: 2 (7 % [2, 23]) after "
        "distil, which costs a clean encoder 9.1 [8.2, 10.0] points of accuracy; 26 (93 % [77, 98]) after clp, which "
        "costs a clean encoder nothing measurable, +0.1 [−0.8, +1.0] points; 28 (100 % [88, 100]) after free, at a "
        "price that was not measured (without an adaptive attack: none was made against distil, clp, free)."
    ]


def test_a_repair_is_credited_with_its_worst_case() -> None:
    """Made against distil, the attack leaves 21 of 28; what it does under clp is not held against clp."""
    plain = edits(repaired={"clp": first(14), "distil": first(2)})
    aimed = edits("against=distil", repaired={"clp": first(28), "distil": first(21)})
    (line,) = advice(mended_twin(clp=0.0, distil=0.02), *plain, *aimed)
    assert line == (
        "Of the 28 chosen images that pacl steers, so many are still steered after a repair: 14 (50 % [33, 67]) after "
        "clp, which costs a clean encoder nothing measurable, 0.0 [−0.9, +0.9] points; 21 of 28 (75 % [57, 87]) after "
        "distil where the attack is made against it (pacl (against=distil)), with which a clean encoder gains +2.0 "
        "[+1.1, +2.9] points of accuracy (counting what was made against distil; nothing was against clp)."
    )
    # An attack against it that does less is not the worst case.
    milder = edits("against=clp", repaired={"clp": first(3)})
    (line,) = advice(mended_twin(clp=0.0, distil=0.02), *plain, *milder)
    assert "14 (50 % [33, 67]) after clp, which" in line and "counting what was made against clp; nothing" in line


def test_failed_repairs_are_counted_apart() -> None:
    lines = advice(
        mended_twin(clp=0.0), *edits(repaired={"clp": lambda k: FAILED if 1 <= k <= 4 else repaired(0, success=True)})
    )
    assert "still steered after a repair: 24 of 24 (100 % [86, 100]; 4 failed) after clp" in lines[0]


def test_scans_and_guards() -> None:
    """Drift always stands above its three clean encoders; decree never does, and scores no images."""
    lines = advice(
        mended_twin(),
        *edits(
            scanned={
                "decree": lambda k: scanned(2.9),
                "drift": lambda k: scanned(3.1, rank=1 if k < 27 else 2),
                "bare": lambda k: scanned(2.6 if k < 3 else 2.4, null=()),
                # Not credited: where the images are the first five, the clean encoder stands above the null too.
                "foreign": lambda k: scanned(9.0, null=(1.0, 2.0, 2.4) if k < 5 else (1.0, 2.0, 3.0)),
                "broken": lambda k: Scanned(scan={}, images=501, error="no images"),
            },
            guarded={
                "views-vote": lambda k: guarded(0.61, k in (1, 2, 3)),
                "agreement": lambda k: guarded(0.0 if k == 0 else 1.0, flagged=True),
            },
        ),
    )
    assert lines == [
        "Scans against pacl: drift ranks the chosen image first in 27 of 30 (90 % [74, 97]) and scores 30 of 30 edits "
        "(100 % [89, 100]) above all 3 clean encoders, a false-alarm rate of 25 %; bare scores 3 of 30 edits "
        "(10 % [3, 26]) above the clean one; decree sees none of 30 edits; foreign scores 30 of 30 edits "
        "(100 % [89, 100]) above all 3 clean encoders, a false-alarm rate of 25 %, and the clean encoder too in "
        "5 of 30 (without an adaptive attack: none was made against drift, bare, decree, foreign).",
        "Guards against pacl: agreement has an AUROC of 100.0 [88.3, 100.0] % and flags 29 of 29 (100 % [88, 100]) at "
        "5 % false alarms; views-vote has an AUROC of 61.0 [43.0, 76.4] %, which may be chance, and flags 3 of 29 "
        "(10 % [4, 26]) at 5 % false alarms (without an adaptive attack: none was made against agreement, views-vote).",
    ]


def test_worst_case_of_scans_and_guards_and_budgets() -> None:
    plain = edits(
        threat="pretraining",
        budget=0.01,
        scanned={"drift": lambda k: scanned(4, 1)},
        guarded={"views-vote": lambda k: guarded(0.9, True)},
    )
    aimed = edits(
        "steps 5, against=drift",
        threat="pretraining",
        budget=0.01,
        scanned={"drift": lambda k: scanned(2, 7)},
        guarded={"views-vote": lambda k: guarded(0.1, False)},
    )
    scans, guards = advice(mended_twin(), *plain, *aimed)
    assert scans == (
        "Scans against pacl at 1 %: drift sees none of 30 runs where the attack is made against it "
        "(pacl (steps 5, against=drift) at 1 %) (counting what was made against drift)."
    )
    assert "views-vote has an AUROC of 90.0 [" in guards
    # Another budget is another attack.
    other = edits(
        "against=drift", threat="pretraining", budget=0.1, scanned={"drift": lambda k: scanned(4, 1 if k else 2)}
    )
    lines = advice(mended_twin(), *plain, *other)
    assert lines[0].startswith("Scans against pacl at 1 %: drift ranks the chosen image first in 30 of 30 (")
    assert lines[2].startswith("Scans against pacl: drift ranks the chosen image first in 29 of 30 (")


def test_nothing_is_said_where_nothing_was_tried() -> None:
    assert advice(mended_twin(), *edits()) == []
    nothing = [one.model_copy(update={"target": one.target.model_copy(update={"success": False})}) for one in edits()]
    repaired_all = [one.model_copy(update={"repaired": {"clp": repaired(0, success=False)}}) for one in nothing]
    assert advice(mended_twin(clp=0.0), *repaired_all) == []


def test_it_follows_what_is_said_of_the_labelled_rows_in_every_template() -> None:
    page = report.render([*planted.audit(), *edits("", repaired={"clp": first(3)})])
    assert page.recommendation[0].startswith("No defence of the labelled rows was tried")
    assert "after clp" in page.recommendation[-1]
    assert page.markdown.index("after clp") < page.markdown.index("## Verdict")
    assert "still steered after a repair" in page.html
