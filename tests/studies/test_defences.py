"""The study of defences: what is left of the damage, and what edits outlive, from planted records, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts.false_alarms import OWN, alarms

from foretaste.defences.scans.base import Finding
from foretaste.defences.scans.drift import Drift
from foretaste.errors import RecordError
from foretaste.record import TrialRecord, append
from foretaste.report.summary import summarise
from foretaste.studies import defended_encoders, false_alarms
from foretaste.studies.defences import held, page, proven
from foretaste.studies.grid import Part
from tests.records_fixture import N
from tests.report.defended_fixture import attacked, edits, first, guarded, mended_twin, scanned, twin, voted

PART = Part(scenario="transfer", encoder="E", data="D")
PLAIN = attacked(1462, {"sphere": (1662, 0.9), "trimmed": (1562, 0.5)})
AIMED = attacked(1502, {"sphere": (1480, 0.03), "trimmed": (1600, 0.6)}, "sphere")


def test_a_defence_stands_by_its_worst_attack_and_by_those_that_did_not_know_it() -> None:
    found = held(PART, summarise([twin(sphere=1660, trimmed=1602), *PLAIN, *AIMED]))
    sphere, trimmed = (next(one for one in found if one.defence == key) for key in ("sphere", "trimmed"))
    assert (sphere.bare, sphere.plain, sphere.worst) == (1462 / N, 1662 / N, 1480 / N)
    assert sphere.adaptive and sphere.by == "exact (features, box, against sphere)"
    assert sphere.gain is not None
    assert sphere.gain.value == pytest.approx(18 / N)
    assert (trimmed.plain, trimmed.worst, trimmed.adaptive) == (1562 / N, 1562 / N, False)
    assert trimmed.price == pytest.approx((1602 - 1662) / N)


def folder(base: Path, **audits: list[TrialRecord]) -> tuple[Path, dict[str, Part]]:
    for name, records in audits.items():
        (base / name).mkdir(parents=True)
        for record in records:
            append(base / name, record)
    return base, {name: PART.model_copy(update={"data": f"D-{name}"}) for name in audits}


def test_damage_is_a_mean_over_pipelines_with_the_price_beside_it(tmp_path: Path) -> None:
    """Losses under sphere: 1662 - 1480 = 182 rows of 2,000 here, 1662 - 1562 = 100 there: 9.1 and 5.0 points."""
    one = [
        twin(sphere=1660),
        *attacked(1462, {"sphere": (1662, 0.9)}),
        *attacked(1502, {"sphere": (1480, 0.1)}, "sphere"),
    ]
    two = [
        twin(sphere=1642),
        *attacked(1502, {"sphere": (1602, 0.9)}),
        *attacked(1582, {"sphere": (1562, 0.1)}, "sphere"),
    ]
    sections, values = page(*folder(tmp_path, one=one, two=two))
    text = "\n".join(sections)
    assert "mean over 2 pipelines" in text
    # Without a defence 200 and 160 rows are lost: 9.0 points. Not made against sphere: 0 and 60 rows: 1.5 points.
    assert "| none | – | 9.0 | – |" in text
    assert "| sphere (5 % false alarms) | −0.6 | 1.5 | 7.0 |" in text
    assert len(values["rows"]) == 4, "two rates on two pipelines"
    parts = {
        name: PART.model_copy(update={"question": question})
        for name, question in (("one", "headline"), ("two", "pixels"))
    }
    features, images = "\n".join(page(tmp_path, parts)[0]).split("## The same with images as poison")
    assert (
        "| none | – | 10.0 | – |" in features and "mean over 1 pipeline:" in features and "| none | – | 8.0 |" in images
    )
    alone, _ = page(*folder(tmp_path / "more", only=[twin(sphere=1660), *attacked(1462, {"sphere": (1662, 0.9)})]))
    assert "| 0.0 | untried |" in "\n".join(alone)


def test_certificates_stand_beside_the_lowest_accuracy_that_was_found(tmp_path: Path) -> None:
    records = voted(share=0.03, changes=150)
    (one,) = proven(PART, summarise(records))
    assert (one.accuracy.value, one.bounds[0.03].value, one.found[0.03]) == (1602 / N, 0.5, 1562 / N)
    base, parts = folder(tmp_path, c=records)
    text = "\n".join(page(base, parts)[0])
    assert "| E on D-c | dpa |" in text and "| 50.0 (78.1) |" in text and "What is left of the damage" in text
    parts["c"] = parts["c"].model_copy(update={"question": "certificates"})
    assert "What is left of the damage" not in "\n".join(page(base, parts)[0])
    parts["c"] = parts["c"].model_copy(update={"question": "pixels"})
    assert "## Certificates" not in page(base, parts)[0]


def test_edits_are_pooled_by_defence_and_an_aimed_attack_has_its_own_line(tmp_path: Path) -> None:
    """28 of 30 pairs count in each audit, where the last is not steered: 29 eligible ones are repaired."""
    plain = [mended_twin(clp=-0.02), *edits(repaired={"clp": first(9)})]
    more = [mended_twin(clp=-0.04), *edits(repaired={"clp": first(20)})]
    aimed = edits("against=clp", repaired={"clp": first(28)})
    base, parts = folder(tmp_path, one=plain, two=more, three=[mended_twin(clp=-0.03), *aimed])
    sections, values = page(base, parts)
    lines = [one for one in values["encoder"] if one["kind"] == "repair"]
    assert [(one["attack"], one["aimed"], one["pipelines"], one["pairs"]) for one in lines] == [
        ("pacl", False, 2, 58),
        ("pacl (against=clp)", True, 1, 29),
    ]
    assert lines[0]["figures"]["after"].value == pytest.approx(29 / 58)
    assert lines[0]["figures"]["before"].value == pytest.approx(56 / 58)
    assert lines[0]["figures"]["cost"] == pytest.approx(-0.03)
    assert lines[1]["figures"]["after"].value == pytest.approx(28 / 29)
    assert any("pacl (against=clp) ◆" in block for block in sections)


def test_an_attack_made_against_another_defence_is_in_no_line() -> None:
    summary = summarise([*edits(repaired={"clp": first(9)}), *edits("against=clp", repaired={"distil": first(9)})])
    found = list(defended_encoders.met(PART, summary, "repair"))
    assert [(one.defence, one.attack) for one in found] == [("clp", "pacl")]


def test_scans_count_edits_at_the_rate_and_guards_chosen_images(tmp_path: Path) -> None:
    """A null of 19: a score above all of them has a rate of 1/20, one that a clean encoder reaches 2/20."""
    null = tuple(float(k) for k in range(19))
    seen = edits(
        scanned={"drift": lambda k: scanned(30.0 if k < 12 else 18.0, 1 if k < 6 else 2, null)},
        guarded={"agreement": lambda k: guarded(0.75, k % 2 == 0)},
    )
    seen = [
        t.model_copy(
            update={
                "scanned": {
                    k: s.model_copy(
                        update={
                            "false_alarm_rate": (1 + sum(n >= s.score for n in null)) / 20,
                            "clean_score": 18.5 if place < 3 else 18.0,
                        }
                    )
                    for k, s in t.scanned.items()
                }
            }
        )
        for place, t in enumerate(seen)
    ]
    values = page(*folder(tmp_path, one=seen))[1]["encoder"]
    scan, guard = (next(one for one in values if one["kind"] == kind) for kind in ("scan", "guard"))
    assert (scan["figures"]["flagged"].value, scan["figures"]["first"].value) == (12 / 30, 6 / 30)
    assert scan["figures"]["null"] == 19 and scan["pairs"] == 30
    assert scan["figures"]["wolf"].value == 3 / 30, "the clean encoder scores above the null"
    # Of pairs 1 to 29 the last is not steered, and 12 to 28 raise no alarm.
    assert scan["figures"]["steered"].value == pytest.approx(28 / 29)
    assert scan["figures"]["through"].value == pytest.approx(17 / 29)
    assert guard["pairs"] == 29 and guard["figures"]["auroc"].value == pytest.approx(0.75)
    assert guard["figures"]["flagged"].value == pytest.approx(14 / 29), "even pairs from 2 to 28"
    assert guard["figures"]["through"].value == pytest.approx(14 / 29), "odd pairs but the last, which is not steered"
    assert guard["figures"]["false"] == pytest.approx(0.01)


def test_clean_encoders_that_are_flagged_stand_below_the_scans(tmp_path: Path) -> None:
    found = alarms(Drift(), [Finding(float(k)) for k in range(20)] + [Finding(30.0)], [OWN] * 20 + ["far"])
    values = {"command": "c", "data": {"name": "D", "rows": 1000}, "null": 20, "scans": {"Drift(top=10)": found}}
    (tmp_path / "false-alarms.json").write_text(json.dumps(values))
    shown = false_alarms.table(tmp_path)
    assert shown is not None
    assert [line.cells[:4] for line in shown.lines] == [
        ["Drift", OWN, "20", "5.0 [0.9, 23.6]"],
        ["Drift", "far", "1", "100.0 [20.7, 100.0]"],
    ]
    base, parts = folder(tmp_path, one=edits(scanned={"drift": lambda k: scanned(1.0, 1)}))
    text = "\n".join(page(base, parts)[0])
    assert text.index("## Scans") < text.index("| Drift | far |")
    (tmp_path / "false-alarms.json").write_text("{}")
    with pytest.raises(RecordError, match=r"a file of scripts/false_alarms.py; got KeyError"):
        false_alarms.table(tmp_path)
    assert false_alarms.table(tmp_path / "one") is None
