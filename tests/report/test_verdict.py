"""The verdict against planted figures: its numbers, and what it says when parts are missing."""

from __future__ import annotations

import pytest

from foretaste import report
from foretaste.record import Estimate, ProbeScores, TrialRecord
from tests import records_fixture as planted

CLIPPED = "exact, clipped to the clean feature range"


def only(records: list[TrialRecord], *threats: str) -> list[TrialRecord]:
    return [trial for trial in records if trial.threat in threats]


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
