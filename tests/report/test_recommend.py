"""The recommendation for the labelled rows, against planted records: figures to the digit, and every template."""

from __future__ import annotations

from foretaste import report
from foretaste.record import (
    TrialRecord,
)
from tests import records_fixture as planted
from tests.records_fixture import CLEAN_RIGHT
from tests.report.defended_fixture import attacked, twin, voted


def advice(*records: TrialRecord) -> list[str]:
    return report.render(list(records)).recommendation


PLAIN = attacked(1462, {"sphere": (1662, 0.9), "trimmed": (1562, 0.5)})


AIMED = attacked(1502, {"sphere": (1480, 0.03), "trimmed": (1600, 0.6)}, "sphere")


def test_a_defence_is_credited_with_what_survives() -> None:
    """Sphere undoes all of the plain attack, but leaves the one made against it: trimmed is what helps."""
    lines = advice(twin(sphere=1660, trimmed=1602), *PLAIN, *AIMED)
    # Without: 1462 of 2000. Trimmed leaves 1562, of the damage of 200 rows that is 100; sphere 1480.
    assert lines[0].startswith(
        "At 3 % trimmed (1 % false alarms) undoes 50 % of the damage of exact (features, box): the lowest accuracy "
        "that an attack here leaves is 78.1 % with it and 73.1 % without, +5.0 ["
    )
    assert "; without poison it costs accuracy, −3.0 [" in lines[0]
    assert lines[0].endswith(
        "(without an adaptive attack: none was made against trimmed, and one may get past it; 2 defences tried)."
    )
    assert lines[1] == (
        "sphere (5 % false alarms) drops 3.0 [2.0, 4.0] % of the poison of exact (features, box, against sphere) at 3 "
        "%, and 90.0 [89.0, 91.0] % of that of exact (features, box)."
    )
    assert lines[2] == "The figures of trimmed are without an adaptive attack: none was made against them."
    assert len(lines) == 3


def test_only_filters_without_adaptive_attack() -> None:
    lines = advice(twin(sphere=1662, trimmed=1652), *PLAIN)
    assert lines[0].startswith("At 3 % sphere (1 % false alarms) undoes 100 % of the damage")
    assert "without poison it costs nothing measurable, 0.0 [0.0, 0.0] points" in lines[0]
    assert "none was made against sphere, and one may get past it" in lines[0]
    assert lines[1:] == ["The figures of sphere, trimmed are without an adaptive attack: none was made against them."]


def test_the_best_one_was_attacked_itself() -> None:
    aimed = attacked(1502, {"sphere": (1562, 0.01)}, "sphere")
    lines = advice(twin(sphere=1662), *attacked(1462, {"sphere": (1662, 0.9)}), *aimed)
    assert lines[0].endswith("(that counts an attack made against sphere; 1 defence tried).")
    assert lines[1].startswith("No filter here sees the adaptive attack at 3 %: none drops more of its poison than of")
    assert "(exact (features, box, against sphere))." in lines[1]
    assert not any("without an adaptive attack" in line for line in lines)


def test_none_helps_by_its_interval() -> None:
    lines = advice(twin(sphere=1600), *attacked(1462, {"sphere": (1464, 0.1)}))
    assert lines[0].startswith(
        "At 3 % none of the defences tried helps by its interval; the best is sphere (1 % false alarms), +0.1 ["
    )


def test_nothing_to_undo_and_budgets_in_order() -> None:
    weak = attacked(CLEAN_RIGHT, {"sphere": (1660, 0.1)}, budget=0.01)
    lines = advice(twin(sphere=1660), *attacked(1462, {"sphere": (1562, 0.5)}), *weak)
    assert lines[0] == "At 1 % no attack lowered accuracy measurably, so there is nothing for a defence to undo."
    assert lines[1].startswith("At 3 % sphere (1 % false alarms) undoes 50 %")


def test_no_defence_and_no_attack() -> None:
    assert advice(planted.clean_twin(), *attacked(1462, {})) == [
        "No defence of the labelled rows was tried, so none can be recommended."
    ]
    assert advice(twin(sphere=1660)) == [] and "Recommendation" not in report.render([twin(sphere=1660)]).html
    failed = [trial.model_copy(update={"status": "failed"}) for trial in PLAIN]
    assert advice(twin(sphere=1660), *failed) == []
    partly = attacked(1462, {"sphere": (1562, 0.5)}) + attacked(1470, {}, attack="tgda")
    assert advice(twin(sphere=1660), *partly)[0] == (
        "At 3 % no defence was tried against every attack, so none can be recommended."
    )


def test_without_a_clean_twin_nothing_is_claimed() -> None:
    assert not any("undoes" in line for line in advice(*PLAIN))


def test_a_certified_head_says_that_nobody_attacked_it() -> None:
    records = voted(share=0.01, changes=50)
    lines = advice(*records)
    assert lines[0].startswith("At 3 % dpa undoes 50 % of the damage")
    assert "(the attacks were made for the plain head, not against this one; 1 defence tried)." in lines[0]
    assert len(lines) == 1
