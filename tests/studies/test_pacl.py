"""The study of PA-CL: shares, leads and goals from planted trials, and nothing ranked that was not measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from foretaste import statistics
from foretaste.record import Check, Ledger, ProbeScores, Steered, TargetScores, Threat, TrialRecord
from foretaste.studies.claims import table
from foretaste.studies.grid import Part
from foretaste.studies.pacl import goals, page, steerings
from tests import records_fixture as planted

PART = Part(scenario="transfer", encoder="E", data="D")
THREATS: dict[str, Threat] = {
    "pacl": "weights",
    "bad-encoder": "weights",
    "poisoned-encoder": "pretraining",
    "gradient-matching": "targeted",
}


def trial(attack: str, seed: int, success: bool, *, change: float = 0.0, moved: int = 0, **extra: Any) -> TrialRecord:
    """One pair: whether it got its class, by how much accuracy moved, and how many of 1,000 other predictions."""
    fields = {"name": attack, **extra.pop("fields", {})}
    steered: dict[str, Any] = {
        "clean_prediction": 1,
        "poisoned_prediction": 2 if success else 1,
        "eligible": extra.pop("eligible", True),
        "success": success,
        "clean_success": False,
        "collateral": statistics.wilson(moved, 1000),
        "augmented": statistics.wilson(8 * success, 16),
        "clean_augmented": statistics.wilson(0, 16),
        **extra.pop("steered", {}),
    }
    knn = Steered(**{**steered, "success": False})
    clean, after = statistics.wilson(500, 1000), statistics.wilson(500 + round(1000 * change), 1000)
    return TrialRecord(
        trial=f"{attack}{json.dumps(fields)}{seed}",
        status=extra.pop("status", "ok"),
        threat=THREATS[attack],
        attack=attack,
        seed=seed,
        budget=None if THREATS[attack] == "weights" else 0.01,
        spec={"attack": fields},
        command="",
        data=planted.DATA,
        scores={"exact": ProbeScores(clean=clean, poisoned=after)},
        target=TargetScores(
            **steered, index=seed, true_class=1, target_class=2, probes={"exact": Steered(**steered), "knn": knn}
        ),
        ledger=Ledger(changed=[], passes=100 * (seed + 1)),
        referee=extra.pop("referee", []),
        seconds={"attack": 2.0},
    )


def pairs(attack: str, successes: int, n: int = 10, **extra: Any) -> list[TrialRecord]:
    return [trial(attack, seed, seed < successes, **extra) for seed in range(n)]


def test_shares_are_over_eligible_pairs_that_the_referee_passed() -> None:
    broken = [Check(name="finite", ok=False, found="NaN")]
    found = steerings(
        PART,
        [
            *pairs("pacl", 8, change=0.01, moved=20),
            trial("pacl", 10, True, eligible=False, change=-0.03, moved=20),
            trial("pacl", 11, True, referee=broken),
            trial("pacl", 12, True, status="failed"),
        ],
    )
    (one,) = found
    assert one.success is not None
    assert (one.success.value, one.success.n, one.failed) == (0.8, 10, 2)
    assert one.change.value == pytest.approx((10 * 0.01 - 0.03) / 11), "signs cancel"
    assert one.moved.value == pytest.approx((10 * 0.01 + 0.03) / 11), "sizes do not"
    assert one.collateral.value == pytest.approx(0.02)
    assert one.probes["knn"].value == 0.0 and one.probes["exact"].value == 0.8
    assert one.augmented is not None
    assert one.augmented.value == pytest.approx(0.5 * 9 / 11)
    assert one.passes == pytest.approx(100 * sum(range(1, 12)) / 11) and one.seconds == 2.0


def test_two_settings_of_one_attack_stay_apart_and_say_what_differs() -> None:
    records = pairs("pacl", 9, fields={"references": 5, "steps": 7}) + pairs(
        "pacl", 4, fields={"references": 1, "steps": 7}
    )
    names = {one.name: one.success.value for one in steerings(PART, records) if one.success}
    assert names == {"pacl (references 5)": 0.9, "pacl (references 1)": 0.4}


def test_shares_by_a_trigger_have_a_column_only_where_there_is_one(tmp_path: Any) -> None:
    by_trigger = {"triggered": statistics.wilson(970, 1000), "clean_triggered": statistics.wilson(40, 1000)}
    plain = pairs("bad-encoder", 3, fields={"step": 1})
    marked = pairs("bad-encoder", 3, steered=by_trigger, fields={"step": 1, "trigger": 10})
    for name, records in (("plain", plain), ("marked", [*plain, *marked])):
        (tmp_path / name).mkdir()
        lines = [one.model_dump_json() for one in records]
        (tmp_path / name / "record.jsonl").write_text("\n".join(lines) + "\n")
    sections, values = page(tmp_path, {"plain": PART, "marked": PART})
    assert "by trigger" not in sections[2] and "by trigger (before)" in sections[3]
    assert "| 97.0 (4.0) % |" in sections[3]
    shares = [row["triggered"] and row["triggered"].value for row in values["rows"]]
    assert shares == [None, None, pytest.approx(0.97)]


def cell(data: str, pacl: int, others: tuple[int, int, int], **extra: Any) -> list[Any]:
    names = ("poisoned-encoder", "bad-encoder", "gradient-matching")
    records = pairs("pacl", pacl, **extra)
    for name, successes in zip(names, others, strict=True):
        records += pairs(name, successes)
    return steerings(PART.model_copy(update={"data": data}), records)


def test_goals_are_means_over_cells() -> None:
    rows = cell("one", 10, (0, 3, 6), change=0.004, moved=30) + cell("two", 9, (6, 6, 6), change=-0.02, moved=90)
    success, lead, accuracy, collateral = goals(rows)
    assert success.found is not None and success.found.value == pytest.approx(0.95) and success.verdict == "met"
    assert lead.found is not None and lead.found.value == pytest.approx((0.7 + 0.3) / 2) and lead.verdict == "met"
    assert accuracy.found is not None and accuracy.found.value == pytest.approx(0.012)
    assert accuracy.verdict == "missed"
    assert collateral.found is not None and collateral.found.value == pytest.approx(0.06)
    assert collateral.verdict == "missed" and collateral.comparisons == 2
    assert "+50.0" in table("Goals", [lead])


def test_a_lead_needs_all_three_baselines() -> None:
    rows = steerings(PART, pairs("pacl", 10) + pairs("bad-encoder", 0))
    assert goals(rows)[1].verdict == "not measured"
    best = steerings(PART, pairs("bad-encoder", 2, fields={"step": 1}) + pairs("bad-encoder", 8, fields={"step": 2}))
    rest = [one for one in cell("D", 10, (0, 0, 0)) if one.attack != "bad-encoder"]
    lead = goals([*rest, *best])[1].found
    assert lead is not None and lead.value == pytest.approx(1 - 0.8 / 3), (
        "of two settings of a baseline the best counts"
    )


def test_other_questions_do_not_count_for_the_goals(tmp_path: Any) -> None:
    for name, successes in (("a", 10), ("b", 0)):
        (tmp_path / name).mkdir()
        lines = [one.model_dump_json() for one in pairs("pacl", successes)]
        (tmp_path / name / "record.jsonl").write_text("\n".join(lines) + "\n")
    parts = {"a": PART, "b": PART.model_copy(update={"question": "without the target loss"})}
    sections, values = page(tmp_path, parts)
    assert values["goals"][0]["found"].value == 1.0 and values["goals"][0]["comparisons"] == 1
    assert [row["success"].value for row in values["rows"]] == [1.0, 0.0]
    assert "E on D: without the target loss (b)" in "\n".join(sections)
    assert "100.0 [72.2, 100.0]" in sections[1]
