from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from foretaste import attacks, probes
from foretaste.attacks import ATTACKS
from foretaste.audits.spec import AuditSpec, MethodSpec, TrialSpec
from foretaste.cli.attack import attack
from foretaste.errors import SpecError
from foretaste.method import Method
from foretaste.probes import PROBES


def test_a_method_with_fields_after_colons() -> None:
    spec = MethodSpec.parse("exact:carrier=pixels:epsilon=8")
    assert spec.name == "exact"
    assert spec.fields == {"carrier": "pixels", "epsilon": 8}
    configured = attacks.configure(spec.name, spec.fields)
    assert configured.entry()["epsilon"] == 8.0
    assert configured.variant == "pixels, 8/255"


def test_values_that_yaml_does_not_take_for_numbers_are_read_all_the_same() -> None:
    entry = attacks.configure("exact", MethodSpec.parse("exact:rate=1e-3:constraint=none").fields).entry()
    assert entry["rate"] == 0.001
    assert entry["constraint"] == "none"


@pytest.mark.parametrize("text", ["", ":a=1", "exact:", "exact:carrier", "exact:=8", "exact::epsilon=8"])
def test_a_method_that_cannot_be_read(text: str) -> None:
    with pytest.raises(SpecError, match="name:field=value"):
        MethodSpec.parse(text)


@pytest.mark.parametrize("name", [*ATTACKS, *(f"exact:{more}" for more in ("carrier=pixels:epsilon=4", "rate=1e-05"))])
def test_a_configured_attack_can_be_written_and_read(name: str) -> None:
    spec = MethodSpec.parse(name)
    configured = attacks.configure(spec.name, spec.fields)
    again = MethodSpec.parse(str(MethodSpec.of(configured)))
    assert attacks.configure(again.name, again.fields) == configured


def test_defaults_are_the_embedded_audit() -> None:
    spec = AuditSpec()
    assert (spec.data, spec.encoder.reference) == ("digits", "digits-simclr")
    for method in spec.attacks:
        attacks.configure(method.name, method.fields)
    for method in spec.probes:
        probes.configure(method.name, method.fields)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"data": "d.npz", "encoder": {"reference": "timm:resnet18", "weights": "w.pth", "mean": [0.5, 0.5, 0.5]}},
        {"features": "F.npz"},
        {"features": "F.npz", "validation": "V.npz", "test": "T.npz", "attacks": ["exact:rate=1e-2:labels=chosen"]},
        {"attacks": [{"name": "exact", "carrier": "pixels", "epsilon": 8}], "budgets": [1e-05, 0.29], "seeds": 7},
        {"probes": ["exact", "sgd:epochs=3"], "split": {"train": 0.6, "validation": 0.4, "clean": 0, "limit": 9}},
        {"data": "ordner/Übung 猫 #1: x", "encoder": "net.py:make"},
    ],
    ids=str,
)
def test_yaml_gives_the_same_audit_back(values: dict[str, Any], tmp_path: Path) -> None:
    spec = AuditSpec.make(values)
    path = tmp_path / "audit.yaml"
    path.write_text(spec.to_yaml(), encoding="utf-8")
    again = AuditSpec.read(path)
    assert again == spec
    assert again.to_yaml() == spec.to_yaml()
    assert again.base() == spec.base()


def test_short_forms_in_yaml_mean_the_same_as_long_ones(tmp_path: Path) -> None:
    short, long = tmp_path / "short.yaml", tmp_path / "long.yaml"
    short.write_text("data: d.npz\nencoder: net.py:make\nattacks: [label-flip, 'exact:epsilon=8:carrier=pixels']\n")
    long.write_text(
        "data: d.npz\nencoder: {reference: 'net.py:make'}\n"
        "attacks:\n- {name: label-flip}\n- {name: exact, epsilon: 8, carrier: pixels}\n"
    )
    assert AuditSpec.read(short) == AuditSpec.read(long)


def test_attacks_on_features_are_the_default_there() -> None:
    named = [method.name for method in AuditSpec.make({"features": "F.npz"}).attacks]
    assert named == ["label-flip", "exact"]
    assert "data" not in yaml.safe_load(AuditSpec.make({"features": "F.npz"}).to_yaml())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bugdets": [0.1]}, r"keys data, .*budgets.*; got bugdets = \[0\.1\]"),
        ({"encoder": {"reference": "x", "wdith": 3}}, r"encoder\.wdith = 3"),
        ({"split": {"tain": 0.5}}, r"split\.tain = 0\.5"),
        ({"split": {"train": 0.9, "validation": 0.9}}, "must not exceed 1"),
        ({"split": {"train": 0}}, r"split\.train = 0"),
        ({"budgets": [0.1, -1]}, "budgets: shares above 0 .*got -1"),
        ({"budgets": [0]}, "budgets: shares above 0"),
        ({"budgets": [float("nan")]}, "budgets: shares above 0 .*got nan"),
        ({"budgets": [11]}, "got 11"),
        ({"budgets": []}, "budgets: at least one"),
        ({"budgets": [0.1, 0.1]}, "budgets: each one once"),
        ({"budgets": ["much"]}, r"budgets\.0 = 'much'"),
        ({"attacks": []}, "attacks: at least one"),
        ({"attacks": [{"carrier": "pixels"}]}, r"no attacks\.0\.name"),
        ({"attacks": ["exact:carrier"]}, "name:field=value"),
        ({"probes": []}, "probes: at least one"),
        ({"seeds": 0}, r"seeds = 0"),
        ({"seeds": 1.5}, r"seeds = 1\.5"),
        ({"targets": -3}, r"targets = -3"),
        ({"ridge": 0}, r"ridge = 0"),
        ({"precision": "half"}, r"precision = 'half'"),
        ({"validation": "V.npz"}, "validation and test: files of features"),
        ({"test": "T.npz"}, "validation and test: files of features"),
        ({"features": "F.npz", "data": "d.npz"}, "features and data"),
        ({"features": "F.npz", "encoder": "net.py:make"}, "features and encoder"),
        ({"features": "F.npz", "split": {"limit": 5}}, "limit: rows of images"),
        ({"data": "d.npz"}, "encoder: the encoder to audit on these data; got none"),
    ],
    ids=str,
)
def test_wrong_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        AuditSpec.make(values, "audit.yaml")
    assert str(caught.value).startswith("audit.yaml: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "keys and values; got list"),
        ("", "keys and values; got NoneType"),
        ("a: [1\n", "readable YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "readable YAML"),
        ("\x00", "readable YAML"),
        ("budgets: 0.1\n", "budgets = 0.1"),
    ],
    ids=repr,
)
def test_files_that_are_no_audit(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message) as caught:
        AuditSpec.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("place", ["missing.yaml", "."])
def test_no_such_audit_file(place: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="readable YAML"):
        AuditSpec.read(tmp_path / place)


def test_identity_follows_what_decides_the_numbers() -> None:
    spec = AuditSpec.make({"data": "d.npz", "encoder": "net.py:make"})
    trial = {"base": spec.base(), "inputs": {"train": "ab"}, "attack": {"name": "exact"}, "budget": 0.1, "seed": 1}
    one = TrialSpec.model_validate(trial).identity
    assert one == TrialSpec.model_validate(dict(reversed(trial.items()))).identity
    assert len(one) == 16
    others = [
        {"budget": 0.2},
        {"seed": 2},
        {"attack": {"name": "label-flip"}},
        {"inputs": {"train": "ac"}},
        {"base": {**spec.base(), "ridge": 0.5}},
        {"target": (3, 1)},
    ]
    assert len({one, *(TrialSpec.model_validate(trial | other).identity for other in others)}) == 1 + len(others)


def test_the_grid_and_the_place_are_no_part_of_what_trials_share() -> None:
    base = AuditSpec.make({"data": "d.npz", "encoder": "net.py:make"}).base()
    grown = AuditSpec.make(
        {"data": "d.npz", "encoder": "net.py:make", "budgets": [0.5], "seeds": 9, "targets": 1, "device": "cpu"}
    ).base()
    assert base == grown


@pytest.mark.parametrize("name", ATTACKS)
def test_no_field_of_an_attack_hides_behind_a_flag_of_its_command(name: str) -> None:
    """Fields of an attack are flags of `foretaste attack`: one of the same name could never be set."""
    assert not set(signature(attack).parameters) & set(attacks.find(name).model_fields)


@pytest.mark.parametrize(
    "fields", [*map(attacks.find, ATTACKS), *map(probes.find, PROBES)], ids=lambda found: found.name
)
def test_every_field_says_what_it_is(fields: type[Method]) -> None:
    assert "name" not in fields.model_fields
    assert all(field.description for field in fields.model_fields.values())


def test_methods_are_frozen_and_know_their_fields() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        attacks.configure("exact", {"steps": "5"}).steps = 7
    with pytest.raises(SpecError, match=r"fields carrier, .*got stepz = 3 .*foretaste list exact"):
        attacks.configure("exact", {"stepz": 3})
    with pytest.raises(SpecError, match="epsilon is a constraint of carrier pixels"):
        attacks.configure("exact", {"epsilon": 8})
    with pytest.raises(SpecError, match=r"one of label-flip, .*; got 'nonsense'"):
        attacks.configure("nonsense", {})
