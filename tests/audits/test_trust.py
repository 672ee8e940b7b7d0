"""Code that a file names runs only with the user's word, and nothing of it is imported before."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from foretaste.audits.spec import AuditSpec
from foretaste.audits.trust import check, check_spec, untrusted_code, words
from foretaste.encoders import build
from foretaste.encoders.spec import EncoderSpec, names_code
from foretaste.errors import ForetasteError, SpecError
from tests.audits.audit_fixture import command

EVIL = """
from pathlib import Path
Path(r"{marker}").write_text("ran")
from typing import ClassVar
from foretaste.attacks.labelled.label_flip import LabelFlip
from foretaste.defences.filters.norm import Norm
from foretaste.probes.knn import KNNProbe

class Attack(LabelFlip):
    name: ClassVar[str] = "evil-attack"

class Filter(Norm):
    name: ClassVar[str] = "evil-filter"

class Probe(KNNProbe):
    name: ClassVar[str] = "evil-probe"

{net}
"""
FEATURES: dict[str, Any] = {"attacks": ["label-flip"], "budgets": [0.1], "seeds": 1}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, []),
        ({"attacks": ["exact:carrier=pixels", {"name": "pacl", "steps": 3}], "probes": ["knn"]}, []),
        ({"attacks": ["their-attack:x=1"], "data": "a:b.npz@x:y", "pretraining": "cifar10,limit=5"}, []),
        ({"encoder": "timm:resnet18", "other": {"reference": "E.safetensors", "weights": "w:x.pth"}}, []),
        ({"encoder": "digits-simclr", "attacker": {"rows": "full"}}, []),
        ({"attacks": ["a.py:A:x=1", "exact"]}, ["attacks a.py:A"]),
        ({"attacks": [{"name": "a.b:A", "x": 1}], "probes": ["p.py:P"]}, ["attacks a.b:A", "probes p.py:P"]),
        ({"defences": ("sphere", "d.py:D", "d.py:D")}, ["defences d.py:D"]),
        ({"encoder": "net.py:make"}, ["encoder net.py:make"]),
        ({"encoder": {"reference": "their.nets:make", "weights": "w.pth"}}, ["encoder their.nets:make"]),
        ({"other": "o.py:make"}, ["other o.py:make"]),
        ({"attacker": {"encoder": "a.py:make"}}, ["attacker.encoder a.py:make"]),
        ({"attacker": {"encoder": {"reference": "a.py:make"}}}, ["attacker.encoder a.py:make"]),
        ({"attacks": ["exact:against=d.py/D/x=1"]}, ["attacks d.py:D"]),
        ({"attacks": [{"name": "pacl", "against": "their.defences:D"}]}, ["attacks their.defences:D"]),
        ({"attacks": ["exact:against=dpa/partitions=250", "pacl:against=clp/u=2"]}, []),
    ],
    ids=str,
)
def test_code_that_values_name_in_any_form(values: dict[str, Any], named: list[str]) -> None:
    assert untrusted_code(values) == named
    if "their-attack:x=1" not in values.get("attacks", []):
        whole = {"data": "d.npz", "encoder": "digits-simclr", **values}
        dumped = AuditSpec.make(whole).model_dump(exclude_unset=True)
        assert untrusted_code(dumped) == named, "as a spec has them"


@pytest.mark.parametrize("key", ["encoder", "other", "attacker", "attacks", "probes", "defences"])
@pytest.mark.parametrize("value", [None, 3, [], [3, None], {}, {"name": 3}, "", [{"reference": "x"}]])
def test_values_that_are_none_are_left_to_the_spec(key: str, value: Any) -> None:
    assert untrusted_code({key: value}) == []


@pytest.mark.parametrize(
    "reference", ["digits-simclr", "resnet18-small", "timm:resnet18", "x.safetensors", "a.py:b.safetensors", "a.py:b"]
)
def test_what_names_code_is_what_would_run_it(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def call(name: str) -> Any:
        ran.append(name)
        raise SpecError("stop")

    monkeypatch.setattr(build.user_code, "call", call)
    if reference != "timm:resnet18":  # takes seconds
        with_error = reference not in ("digits-simclr", "resnet18-small")
        if with_error:
            with pytest.raises(ForetasteError):
                build.build(EncoderSpec(reference=reference))
        else:
            build.build(EncoderSpec(reference=reference))
    assert bool(ran) == names_code(reference)


def test_a_download_needs_the_word_too() -> None:
    with pytest.raises(SpecError, match=r"a\.yaml: --download, since the file asks for one; got download without it"):
        check({"download": True}, "a.yaml", trust_code=True, download=False)
    check({"download": True}, "a.yaml", trust_code=False, download=True)
    check({"download": False}, "a.yaml", trust_code=False, download=False)


def test_what_is_typed_over_the_file_is_the_users_own_word() -> None:
    file = {
        "attacks": ["a.py:A"],
        "encoder": {"reference": "e.py:make"},
        "attacker": {"rows": "full", "encoder": {"reference": "t.py:make"}},
    }
    said = {"attacks": ["mine.py:A"], "encoder": {"reference": "m.py:make"}, "attacker": {"encoder": {}}}
    check(file, "a.yaml", trust_code=False, download=False, said=said)
    with pytest.raises(SpecError, match=r"got encoder e\.py:make, attacker\.encoder t\.py:make without it"):
        check(file, "a.yaml", trust_code=False, download=False, said={"attacks": [], "attacker": {"rows": "full"}})
    check(file, "a.yaml", trust_code=True, download=False)


def test_a_whole_spec_of_a_plan() -> None:
    spec = AuditSpec.make({"data": "d.npz", "encoder": "net.py:make", "probes": ["p.py:P"]})
    with pytest.raises(SpecError, match=r"plan\.yaml: --trust-code, .*; got probes p\.py:P, encoder net\.py:make"):
        check_spec(spec, "plan.yaml", trust_code=False, download=False)
    check_spec(spec, "plan.yaml", trust_code=True, download=False)
    check_spec(AuditSpec(), "plan.yaml", trust_code=False, download=False)


def test_the_flags_that_a_file_needs() -> None:
    assert words(AuditSpec()) == []
    assert words(AuditSpec.make({"data": "cifar10", "encoder": "n.py:make", "download": True})) == [
        "--trust-code",
        "--download",
    ]
    assert words(AuditSpec.make({"data": "cifar10", "encoder": "resnet18-small", "download": True})) == ["--download"]


@pytest.fixture
def evil(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that leaves a marker when it is imported; the marker."""
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "marker"
    (tmp_path / "evil.py").write_text(EVIL.format(marker=marker, net=(world / "net.py").read_text()))
    (tmp_path / "evils").mkdir()
    (tmp_path / "evils" / "__init__.py").write_text("")
    (tmp_path / "evils" / "inner.py").write_text((tmp_path / "evil.py").read_text())
    return marker


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "an attack": ({"attacks": ["evil.py:Attack"]}, "attacks evil.py:Attack"),
    "an attack with fields": ({"attacks": [{"name": "evil.py:Attack", "x": 1}]}, "attacks evil.py:Attack"),
    "an attack of a module": ({"attacks": ["evils.inner:Attack"]}, "attacks evils.inner:Attack"),
    "a defence": ({"defences": ["evil.py:Filter"]}, "defences evil.py:Filter"),
    "a defence to follow": ({"attacks": ["exact:against=evil.py/Filter"]}, "attacks evil.py:Filter"),
    "a probe": ({"probes": ["exact", "evil.py:Probe"]}, "probes evil.py:Probe"),
}
IMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "the encoder": ({"encoder": "evil.py:make"}, "encoder evil.py:make"),
    "the encoder, in full": ({"encoder": {"reference": "evils.inner:make"}}, "encoder evils.inner:make"),
    "the attacker's encoder": (
        {"encoder": "resnet18-small", "attacker": {"encoder": "evil.py:make"}},
        "attacker.encoder evil.py:make",
    ),
    "the other encoder": ({"encoder": "resnet18-small", "other": "evil.py:make"}, "other evil.py:make"),
}


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
@pytest.mark.parametrize("case", [*CASES, *IMAGES])
def test_code_in_a_file_is_not_run_without_the_flag(
    case: str, dry: list[str], world: Path, evil: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, named = {**CASES, **IMAGES}[case]
    if case in CASES:
        values = {**FEATURES, "features": str(world / "F.npz"), **values}
    else:
        values = {**FEATURES, "data": str(world / "images.npz"), **values}
    Path("audit.yaml").write_text(yaml.safe_dump(values))
    assert command("audit", "audit.yaml", *dry, "--out", "out") == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == (
        f"foretaste: audit.yaml: --trust-code, since the file names code to run; got {named} without it; "
        "look at that code, and pass --trust-code if you trust it.\n"
    )
    assert not evil.exists() and not Path("out").exists()


@pytest.mark.parametrize("case", ["an attack", "a defence", "a probe", "the encoder"])
def test_with_the_flag_it_runs(case: str, world: Path, evil: Path) -> None:
    values, _ = {**CASES, **IMAGES}[case]
    source = {"features": str(world / "F.npz")} if case in CASES else {"data": str(world / "images.npz")}
    Path("audit.yaml").write_text(yaml.safe_dump({**FEATURES, **source, "precision": "float32", **values}))
    assert command("audit", "audit.yaml", "--trust-code", "--out", "out") == 0
    assert evil.exists()
    again = json.loads(Path("out/record.jsonl").read_text().splitlines()[-1])["command"]
    assert command(*shlex.split(again)[1:]) == 0, "the record's own command has the flag"


def test_what_is_typed_runs_without_the_flag(world: Path, evil: Path) -> None:
    Path("audit.yaml").write_text(yaml.safe_dump({**FEATURES, "features": str(world / "F.npz")}))
    assert command("audit", "audit.yaml", "--attacks", "evil.py:Attack", "--out", "out") == 0
    assert evil.exists()


def test_a_download_in_a_file_is_refused_and_typed_it_is_not(
    evil: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def load(*_: Any, download: bool = False, **__: Any) -> Any:
        asked.append(download)
        raise SpecError("stop here")

    monkeypatch.setattr("foretaste.data.standard.load_standard", load)
    Path("audit.yaml").write_text("data: cifar10\nencoder: resnet18-small\ndownload: true\nattacks: [label-flip]\n")
    for dry in ([], ["--dry-run"]):
        assert command("audit", "audit.yaml", *dry, "--out", "out") == 2
        assert "audit.yaml: --download, since the file asks for one" in capsys.readouterr().err
    assert not asked
    assert command("audit", "audit.yaml", "--download", "--out", "out") == 2
    assert asked == [True] and "stop here" in capsys.readouterr().err


def test_a_folder_that_an_audit_continues_is_compared_and_never_run(
    world: Path, evil: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["--features", world / "F.npz", "--attacks", "label-flip", "--budgets", "0.1", "--seeds", 1]
    Path("out").mkdir()
    for values in ({"probes": ["evil.py:Probe"]}, {"defences": ["evil.py:Filter"]}):
        theirs = {"features": str(world / "F.npz"), "attacks": ["evil.py:Attack"], **values}
        Path("out/audit.yaml").write_text(yaml.safe_dump(theirs))
        assert command("audit", *source, "--out", "out") == 2
        assert "a new folder, or one of this audit; got an audit with another" in capsys.readouterr().err
        assert not evil.exists()
    # Attacks are no part of what must be equal: the folder goes on with those that were typed.
    Path("out/audit.yaml").write_text(yaml.safe_dump({"features": str(world / "F.npz"), "attacks": ["evil.py:Attack"]}))
    assert command("audit", *source, "--out", "out") == 0
    assert not evil.exists()
