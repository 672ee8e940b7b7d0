"""Identities as literals: a folder from before is continued only while these stay. None of them is ever to change."""

from __future__ import annotations

from typing import Any

import pytest

from tests.safety import doors

FIXED: dict[str, Any] = {"precision": "float32"}
PAIR, GROUP = [(3, 1)], [(3, 1), (8, 0)]
IDENTITIES: dict[str, tuple[dict[str, Any], str, list[tuple[int, int]] | None, str]] = {
    "the clean twin": ({}, "none", None, "dada5380f41c2b74"),
    "defaults": ({}, "exact", None, "612f1e241bca5451"),
    "seeds, budgets, targets and device": (
        {"seeds": 9, "budgets": [0.5], "targets": 4, "device": "cpu"},
        "exact",
        None,
        "612f1e241bca5451",
    ),
    "auto": ({"precision": "auto"}, "exact", None, "96d544a0db66acea"),
    "bfloat16": ({"precision": "bfloat16-channels-last"}, "exact", None, "9a84d4c4524b8180"),
    "features": ({"features": "F.npz", "test": "T.npz"}, "label-flip", None, "c02262709d12b84d"),
    "data, split and probes": (
        {"data": "cifar10", "encoder": "resnet20", "split": {"limit": 9}, "probes": ["exact", "knn:k=3"], "ridge": 1},
        "label-flip:labels=least-likely",
        None,
        "0fc2c4076925bac1",
    ),
    "a subset": ({"attacker": {"rows": "subset", "share": 0.5}}, "exact", None, "997de89746652bfa"),
    "an encoder of its own": ({"attacker": {"encoder": "resnet20"}}, "exact:carrier=pixels", None, "0871551231cbcb82"),
    "no countermeasure": ({"countermeasures": "none"}, "exact", None, "0873cac2e9318c60"),
    "two countermeasures": ({"countermeasures": ["norm-filtered", "clipped"]}, "exact", None, "378307074256ca4b"),
    "defences": ({"defences": ["sphere", "dpa:partitions=5", "clp:u=2"]}, "exact", None, "f05bfafac8f4d02b"),
    "another encoder": ({"defences": ["agreement"], "other": "resnet20"}, "pacl", PAIR, "a09bcb7608a1ea0f"),
    "a null": ({"defences": ["drift"], "null": "clean"}, "pacl", PAIR, "8f29d948baf78b4a"),
    "references": ({"references": "training"}, "bullseye", PAIR, "0ec5d29602d8703d"),
    "pre-training": ({"pretraining": "digits,limit=64,epochs=2"}, "interpolation", PAIR, "dedfa1c52833ab01"),
    "a shadow": ({"shadow": "digits,limit=64"}, "pacl", PAIR, "7dc7b6fab7575fdc"),
    "against": ({}, "gradient-canceling:against=sphere:penalty=2", None, "642ee303dc1b11f6"),
    "younger fields at their defaults": ({}, "exact:against_quantile=0.95", None, "612f1e241bca5451"),
    "pacl": ({}, "pacl", PAIR, "bed430a1dbf2bab7"),
    "pacl, younger fields": (
        {},
        "pacl:durable=2:shadow_share=0.5:batchnorm=frozen:views=2:noise=4",
        PAIR,
        "e5a317a397eed1f7",
    ),
    "pacl against": ({}, "pacl:against=clp/u=2", PAIR, "f521e7f526ed116f"),
    "together": ({}, "pacl:together=2", GROUP, "50db856f65165418"),
    "a trigger": ({}, "bad-encoder:trigger=3:trainable=last-stage", PAIR, "c18bbe5f241bd3d6"),
    "no trigger": ({}, "bad-encoder:trigger=0:trainable=all", PAIR, "5c88c9e4d71efee5"),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identities_stay(name: str) -> None:
    audit, attack, pairs, identity = IDENTITIES[name]
    assert doors.identity(FIXED | audit, attack, pairs) == identity


def test_what_is_at_its_default_is_not_part_of_an_identity() -> None:
    same = ["defaults", "seeds, budgets, targets and device", "younger fields at their defaults"]
    assert len({IDENTITIES[name][3] for name in same}) == 1
    assert len({identity for *_, identity in IDENTITIES.values()}) == len(IDENTITIES) - len(same) + 1
