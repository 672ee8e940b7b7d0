"""Identities of trials as the first records have them: no later change may give an old trial another name."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from foretaste import attacks
from foretaste.attacks import ATTACKS
from foretaste.audits.spec import AuditSpec, MethodSpec, TrialSpec
from foretaste.method import Since, identity_entry, since
from foretaste.record import digest_of

IMAGES: dict[str, Any] = {"data": "d.npz", "encoder": "net.py:make"}
METHODS = {
    "label-flip": "5346dae61614737a",
    "exact": "0d8d5f698cf0544d",
    "gradient-canceling": "1a2546bdd3972670",
    "feature-targeted": "ddd7c63521868240",
    "tgda": "cd4d1bc154f6b2c2",
    "emn": "b2b5528024ed2b59",
    "gradient-matching": "25ad3fead7f8a963",
    "bullseye": "5043445b24cc2873",
    "feature-collision": "6f1628749a2ec66c",
    "pacl": "de6a3791640f5736",
    "pacl-minimal": "8b3823879ecfba66",
    "bad-encoder": "dec7f0b511c29224",
    "poisoned-encoder": "1b4999e13a76d071",
    "interpolation": "97ff04db754d7474",
    "exact:carrier=pixels:epsilon=8": "43454c11edd43fa0",
    "gradient-canceling:against=clp/u=2": "74eab38e845064fd",
    "pacl:together=2:against=clp/u=2": "c7812d2bf869f42c",
    "pacl:durable=2": "86b61ed7404b95b4",
    "pacl-minimal:together=1:noise=2.0:views=2": "be449367388b415b",
    "bad-encoder:trigger=3": "3c9dc691144aeca3",
}
"""A method as on the command line -> digest of its entry."""

AUDITS: dict[str, tuple[dict[str, Any], str, str]] = {
    "demo": ({}, "a419d442bfc75cbb", "3c349da016398d55"),
    "images": (IMAGES, "175893e592ae960c", "8fdb069e71d05349"),
    "features": ({"features": "F.npz", "validation": "V.npz"}, "7a6815055de6d2e4", "931ae663705bf403"),
    "a subset": ({**IMAGES, "attacker": {"rows": "subset", "share": 0.2}}, "3a319de1f658e02f", "59fe0f9433ab1333"),
    "another encoder": (
        {**IMAGES, "attacker": {"encoder": "theirs.py:make"}},
        "bfbb97b47a10c556",
        "6e8b0c60cc1121a5",
    ),
    "no countermeasures": ({**IMAGES, "countermeasures": "none"}, "355cbccd8c4deb5e", "e267b121a459d479"),
    "defended": (
        {**IMAGES, "defences": ["sphere", "dpa:partitions=25"], "other": "other.py:make", "null": "clean"},
        "6cd033a322805e6d",
        "9bd3bb49c525ad82",
    ),
    "references": ({**IMAGES, "references": "training"}, "fc845109db0dbb0b", "2b8952a4358fa6bc"),
    "pretraining": ({**IMAGES, "pretraining": "cifar10,limit=50,epochs=2"}, "644d0424d6b834d2", "6b2396407eb6452d"),
    "shadow": ({**IMAGES, "shadow": "cifar10,limit=50"}, "728c99b33ccf8dd2", "59c76603a4fa9625"),
    "another grid and place": (
        {**IMAGES, "attacks": ["exact"], "budgets": [0.5], "seeds": 9, "targets": 1}
        | {"device": "cpu", "data_dir": "x", "download": True},
        "175893e592ae960c",
        "8fdb069e71d05349",
    ),
    "defaults that are said": (
        {**IMAGES, "attacker": {"rows": "full"}, "countermeasures": ["clipped"], "defences": []}
        | {"references": "own", "shadow": None},
        "175893e592ae960c",
        "8fdb069e71d05349",
    ),
    "probes": (
        {**IMAGES, "probes": ["knn:k=3", "exact"], "ridge": 0.01, "precision": "float32"},
        "97d9c120e18a7dfd",
        "d8253740b935da02",
    ),
}
"""Audit -> the identity of one trial of it, and of one that shares its run with another pair."""


def test_every_attack_has_its_entry_pinned() -> None:
    assert set(ATTACKS) <= set(METHODS)


@pytest.mark.parametrize("text", METHODS)
def test_entries_of_methods_stay(text: str) -> None:
    spec = MethodSpec.parse(text)
    assert digest_of(attacks.configure(spec.name, spec.fields).entry())[:16] == METHODS[text]


@pytest.mark.parametrize("name", AUDITS)
def test_identities_of_trials_stay(name: str) -> None:
    values, alone, grouped = AUDITS[name]
    trial = {"base": AuditSpec.make(values).base(), "inputs": {"train": "ab"}, "attack": {"name": "exact"}}
    trial |= {"budget": 0.1, "seed": 1, "target": (3, 1)}
    assert TrialSpec.model_validate(trial).identity == alone
    assert TrialSpec.model_validate(trial | {"group": {"first": 2, "pairs": [[3, 1], [4, 0]]}}).identity == grouped


class Inner(BaseModel):
    old: int = 1
    young: Annotated[int, Since("0.2")] = 2


class Outer(BaseModel):
    one: Inner = Inner()
    many: tuple[Inner, ...] = ()
    young: Annotated[list[int], Since("0.3")] = Field(default_factory=list)
    maybe: Annotated[Inner | None, Since("0.3")] = None


def test_a_marked_field_is_left_out_at_its_default_alone_also_inside() -> None:
    assert since(Outer) == {"young": "0.3", "maybe": "0.3"}
    assert identity_entry(Outer()) == {"one": {"old": 1}, "many": []}
    assert identity_entry(Outer(), without=["many"]) == {"one": {"old": 1}}
    told = Outer(one=Inner(young=3), many=(Inner(old=5), Inner(young=4)), young=[1], maybe=Inner())
    assert identity_entry(told) == {
        "one": {"old": 1, "young": 3},
        "many": [{"old": 5}, {"old": 1, "young": 4}],
        "young": [1],
        "maybe": {"old": 1},
    }
