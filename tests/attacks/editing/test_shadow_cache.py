"""What is prepared once per encoder and shadow set."""

from __future__ import annotations

import itertools

import torch

from foretaste.attacks.editing.shadow_cache import floored, prepare_shadow
from foretaste.heads.scaler import Scaler
from foretaste.runtime import Runtime, stream
from tests.attacks.weights_fixture import SHADOW, encoder_of


def test_one_ground_for_many_targets_and_a_new_one_for_other_weights() -> None:
    encoder, fields = encoder_of(), (SHADOW, Runtime(), "last-stage", True)
    cache = prepare_shadow(encoder, *fields)  # type: ignore[arg-type]
    assert prepare_shadow(encoder, *fields) is cache  # type: ignore[arg-type]
    assert sorted([*cache.rows.tolist(), *cache.held_out.tolist()]) == list(range(len(SHADOW)))
    batches = [rows.tolist() for rows in itertools.islice(cache.batches(100, stream(0, "batches")), 3)]
    assert len(set(itertools.chain(*batches))) == 300 and not set(cache.held_out.tolist()) & set(batches[0])
    with torch.no_grad():
        encoder.body.net[0].weight.mul_(2)
    assert prepare_shadow(encoder, *fields) is not cache  # type: ignore[arg-type]


def test_a_nearly_dead_feature_does_not_rule_the_units() -> None:
    found = floored(Scaler(torch.zeros(3), torch.tensor([1e-6, 1.0, 2.0])))
    assert found.scale.tolist() == [0.5, 1.0, 2.0]
