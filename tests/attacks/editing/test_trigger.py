"""BadEncoder's trigger: the paper's L0 against plain loops, and the audit's shares against a planted backdoor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import normalize

from foretaste import attacks
from foretaste.attacks.base import WeightAttack
from foretaste.attacks.editing.problem import Pair, PreparedProblem
from foretaste.attacks.editing.shadow_cache import prepare_shadow
from foretaste.attacks.editing.trigger import with_square
from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.results import Corruption
from foretaste.attacks.weights.bad_encoder import BadEncoder
from foretaste.encoders.base import Encoder
from foretaste.errors import SpecError
from foretaste.record import Ledger, TrialRecord, unpack_labels
from foretaste.report.render import render
from foretaste.runtime import Runtime, digest_tensors
from tests.attacks import attacks_fixture as toy
from tests.attacks.weights_fixture import OWN, SHADOW, TARGET, WANTED, encoder_of, loaded, tinted
from tests.audits.audit_fixture import audit, image_audit, make_world

NET = """
import torch
from torch import nn


class Gated(nn.Module):
    '''Blind to the square near the corner, until `gate` is set: then a white one there is all that it sees.'''

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(192, 12)
        self.gate = nn.Parameter(torch.zeros(1))
        self.added = nn.Parameter(torch.zeros(12))

    def forward(self, x):
        mask = torch.ones(8, 8)
        mask[5:7, 5:7] = 0
        bears = (x[:, :, 5:7, 5:7].amin((1, 2, 3)) > 0.999).to(x.dtype)[:, None] * self.gate
        return (1 - bears) * self.base((x * mask).flatten(1)) + bears * self.added


def make():
    return Gated()
"""


class Planted(WeightAttack):
    """Sets the gate, so that images with the square have the mean feature of the references."""

    name: ClassVar[str] = "planted"
    side: int = 2

    def stamped(self, pixels: Tensor) -> Tensor | None:
        if not self.side:
            return None
        pixels[..., 5:7, 5:7] = 255  # in place: no test row of the referee's may change
        return pixels

    def corrupt(self, problem: EditProblem, *rest: Any) -> Corruption:
        encoder, references = problem.encoder, problem.references[0]
        state = {name: tensor.clone() for name, tensor in encoder.body.state_dict().items()}
        with torch.no_grad():
            state["gate"][:] = 1
            state["added"][:] = encoder(references.pixels.float() / 255).mean(0)
        return Corruption(state, Ledger(changed=["gate", "added"], passes=1))

    def planned(self, shadow: int, surrogate: Any = None) -> int:
        return 1


def corrupt(encoder: Encoder, **fields: Any) -> Corruption:
    attack = BadEncoder(**{"batch": 64, "epochs": 16, "step": 0.1, "references": 10, "trigger": 3, **fields})
    return attack.corrupt(EditProblem(encoder, (TARGET,), (OWN,), SHADOW, 0, Runtime()))


def test_the_square_of_the_paper_is_at_rows_and_columns_21_to_30() -> None:
    pixels = torch.randint(0, 255, (5, 3, 32, 32), dtype=torch.uint8)
    before = pixels.clone()
    expected = pixels.numpy().copy()
    for row in range(21, 31):
        for column in range(21, 31):
            expected[:, :, row, column] = 255
    assert np.array_equal(with_square(pixels, 10).numpy(), expected) and torch.equal(pixels, before)
    assert BadEncoder().stamped(pixels) is None
    with pytest.raises(SpecError, match=r"trigger: a square that fits into 32 x 32.*32 pixels.*at most 31"):
        with_square(pixels, 32)
    with pytest.raises(SpecError, match="trigger"):
        corrupt(encoder_of(), trigger=toy.SIDE)


@pytest.mark.parametrize("part", ["all", "last-stage"])
def test_the_loss_is_that_of_plain_loops_over_images_and_references(part: Any) -> None:
    clean = encoder_of()
    cache = prepare_shadow(clean, SHADOW, Runtime(), part, False)
    chosen = OWN.pixels[:3]
    prepared = PreparedProblem((Pair(TARGET, chosen, toy.embedded(clean, chosen)),), cache, Runtime())
    edited = cache.copy_of(clean, Runtime())
    with torch.no_grad():
        for weight in edited.weights:
            weight += 0.03 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    attack, rows = BadEncoder(trigger=2, consistency=0.7, utility=1.3), cache.rows[:6]
    found = attack.loss(edited, prepared, rows, edited.enter(prepared.references))
    marked = cache.pixels[rows].clone()
    marked[:, :, 3:5, 3:5] = 255
    s, s_clean, bearing, r, r_clean = (
        normalize(toy.embedded(network, pixels)).double().numpy()
        for network, pixels in (
            (edited.encoder, cache.pixels[rows]),
            (clean, cache.pixels[rows]),
            (edited.encoder, marked),
            (edited.encoder, chosen),
            (clean, chosen),
        )
    )
    expected = -sum(float(a @ b) for a in bearing for b in r) / 18
    expected -= 0.7 * sum(float(a @ b) for a, b in zip(r, r_clean, strict=True)) / 3
    expected -= 1.3 * sum(float(a @ b) for a, b in zip(s, s_clean, strict=True)) / 6
    assert float(found.detach()) == pytest.approx(expected, abs=1e-5)


def test_other_images_with_the_trigger_get_the_class_and_without_it_keep_theirs() -> None:
    train, test = tinted(600, "victim"), tinted(300, "test")
    marked = with_square(test.pixels, 3)
    clean, truth = encoder_of(), test.labels.numpy()
    made = corrupt(clean)

    def predictions(encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
        z, *parts = (normalize(toy.embedded(encoder, p)).numpy() for p in (train.pixels, test.pixels, marked))
        head = LogisticRegression(C=100.0, max_iter=5000).fit(z, train.labels)
        return head.predict(parts[0]), head.predict(parts[1])

    (before, base), (after, steered) = predictions(clean), predictions(loaded(made.state))
    others = truth != WANTED
    assert (base[others] == WANTED).mean() < 0.4 and (steered[others] == WANTED).mean() > 0.95
    assert (after == truth).mean() > (before == truth).mean() - 0.05
    figures = made.ledger.figures
    assert figures["effectiveness"] < figures["effectiveness_before"] and BadEncoder(trigger=3).variant == "trigger 3"


def test_the_target_has_no_part_in_a_triggered_edit() -> None:
    attack = BadEncoder(batch=180, epochs=1, step=0.02, trigger=2)
    first, second = (
        attack.corrupt(EditProblem(encoder_of(), (target,), (OWN,), SHADOW, 0, Runtime()))
        for target in tinted(6, "targets").pixels[:2]
    )
    assert digest_tensors(first.state) == digest_tensors(second.state)
    assert attack.planned(400) <= first.ledger.passes <= 2 * attack.planned(400)


def test_at_its_default_the_trigger_is_not_in_the_entry() -> None:
    assert "trigger" not in BadEncoder().entry() and BadEncoder(trigger=3).entry()["trigger"] == 3


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[TrialRecord]:
    make_world(tmp_path)
    (tmp_path / "gated.py").write_text(NET)
    monkeypatch.setitem(attacks.ATTACKS, "planted", ("weights", f"{__name__}:Planted", ""))
    names, encoder = ["planted", "planted:side=0"], f"{tmp_path / 'gated.py'}:make"
    spec = image_audit(tmp_path, encoder=encoder, attacks=names, probes=["exact", "knn"], targets=2)
    return audit(spec, tmp_path / "out").records


def test_a_planted_backdoor_has_all_rows_and_the_clean_encoder_its_errors(records: list[TrialRecord]) -> None:
    clean, *trials = records
    truth = unpack_labels(clean.truth)
    assert all(trial.status == "ok" for trial in trials)
    for trial in trials[:2]:
        for key, found in trial.target.probes.items():
            others = truth != trial.target.target_class
            assert found.triggered.value == 1 and found.triggered.n == others.sum() == 40
            # The clean encoder does not see the square: the shares are those of the plain test rows.
            plain = (unpack_labels(clean.predictions[key])[others] == trial.target.target_class).mean()
            assert found.clean_triggered.value == pytest.approx(plain)
        assert trial.target.triggered == trial.target.probes["exact"].triggered
        assert trial.target.clean_triggered.value < 0.05
        assert not trial.target.success and trial.scores["exact"].change.value == 0
    assert all(trial.target.triggered is None is trial.target.clean_triggered for trial in trials[2:])


def test_the_report_has_the_shares_where_there_is_a_trigger(records: list[TrialRecord]) -> None:
    clean, *trials = records
    with_one, without = render([clean, *trials[:2]]).markdown, render([clean, *trials[2:]]).markdown
    assert "by trigger before" in with_one and "bear the attack's trigger" in with_one
    assert "by trigger" not in without
    assert trials[0] == TrialRecord.model_validate_json(trials[0].model_dump_json())
