"""Attacks, defences and probes from outside: files, modules and installed packages."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from foretaste import attacks, defences, plugins, probes
from foretaste.audits.spec import AuditSpec, MethodSpec
from foretaste.defences.base import Filter
from foretaste.errors import SpecError
from foretaste.method import reference_of
from tests.audits.audit_fixture import command

FILE = '''
from typing import ClassVar

import torch
from pydantic import Field
from foretaste.attacks.base import LabelledAttack
from foretaste.attacks.labelled.label_flip import LabelFlip
from foretaste.defences.base import Filter
from foretaste.probes.base import FittedProbe, Probe
from foretaste.defences.repairs.base import Repair

open("executed.txt", "a").write("x")


class Mine(LabelFlip):
    """Copies as label-flip makes them."""

    name: ClassVar[str] = "my-flip"
    strength: float = Field(1.0, gt=0, description="how strong")


class Sphere2(Filter):
    """Distance to the mean of all rows."""

    name: ClassVar[str] = "my-filter"
    power: int = Field(2, ge=1, description="of the distance")

    def score(self, rows, seed=0):
        return (rows.z - rows.z.mean(0)).double().norm(dim=1) ** self.power


class Nearest(Probe):
    """The class of the nearest centroid."""

    name: ClassVar[str] = "my-probe"
    shrink: float = Field(0.0, ge=0, description="towards the mean")

    def fit(self, z, y, classes, seed, runtime):
        centres = torch.stack([z[y == c].mean(0) if (y == c).any() else z.mean(0) for c in range(classes)])
        return FittedProbe(predict=lambda new: torch.cdist(new, centres).argmin(1))


class Unfinished(LabelledAttack):
    name: ClassVar[str] = "unfinished"


class Nameless(Filter):
    def score(self, rows, seed=0):
        return rows.z[:, 0].double()


class Loud(Nameless):
    name = "loud filter"


class Ours(Nameless):
    name = "dpa"


class Again(LabelFlip):
    """It has not got a name of its own."""


class Coded(Nameless):
    name = "coded"
    code: int = 3


class Plain:
    name = "plain"


class Outer:
    class Inner(Nameless):
        name = "inner"


def make():
    return 3
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder is the current one, and `mine.py` is in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path / "mine.py"


def executed(file: Path) -> int:
    marker = file.with_name("executed.txt")
    return len(marker.read_text()) if marker.exists() else 0


def test_a_class_in_a_file_with_fields_after_colons(mine: Path) -> None:
    spec = MethodSpec.parse("mine.py:Mine:strength=2:labels=least-likely")
    assert (spec.name, spec.fields) == ("mine.py:Mine", {"strength": 2, "labels": "least-likely"})
    attack = attacks.configure(spec.name, spec.fields)
    digest = hashlib.sha256(FILE.encode()).hexdigest()[:16]
    assert attack.entry() == {"name": "my-flip", "labels": "least-likely", "strength": 2.0, "code": digest}
    assert str(MethodSpec.of(attack)) == "mine.py:Mine:labels=least-likely:strength=2.0"
    again = MethodSpec.parse(str(MethodSpec.of(attack)))
    assert attacks.configure(again.name, again.fields) == attack
    assert MethodSpec.key_of(attack) == "my-flip:labels=least-likely:strength=2.0"
    assert defences.configure("mine.py:Sphere2", {"power": 3}).entry()["code"] == digest
    assert probes.configure(f"{mine}:Nearest", {}).name == "my-probe"
    assert defences.find("mine.py:Outer.Inner").name == "inner"


@pytest.mark.parametrize(
    ("text", "name", "fields"),
    [
        ("mine.py:Mine", "mine.py:Mine", {}),
        ("a folder/mine.py:Mine:x=1", "a folder/mine.py:Mine", {"x": 1}),
        ("their.attacks:Mine:x=a:y=0.5", "their.attacks:Mine", {"x": "a", "y": 0.5}),
        ("attacks:Mine", "attacks:Mine", {}),
        ("their-attack:x=1", "their-attack", {"x": 1}),
        ("exact:carrier=pixels", "exact", {"carrier": "pixels"}),
        ("mine.py:x=1", "mine.py", {"x": 1}),
    ],
)
def test_names_of_code_are_read(text: str, name: str, fields: dict[str, Any]) -> None:
    spec = MethodSpec.parse(text)
    assert (spec.name, spec.fields) == (name, fields)
    assert MethodSpec.parse(str(spec)) == spec


@pytest.mark.parametrize("text", ["mine.py:", "mine.py:Mine:", "mine.py:Mine:x", "mine.py::x=1", ":Mine", "exact:x"])
def test_names_of_code_that_cannot_be_read(text: str) -> None:
    with pytest.raises(SpecError, match="name:field=value"):
        MethodSpec.parse(text)


def test_both_forms_in_yaml_mean_the_same(mine: Path) -> None:
    Path("short.yaml").write_text("features: F.npz\nattacks:\n- mine.py:Mine:strength=2\n- label-flip\n")
    Path("long.yaml").write_text("features: F.npz\nattacks: [{name: mine.py:Mine, strength: 2}, {name: label-flip}]\n")
    spec = AuditSpec.read(Path("short.yaml"))
    assert spec == AuditSpec.read(Path("long.yaml"))
    assert yaml.safe_load(spec.to_yaml())["attacks"][0] == {"name": "mine.py:Mine", "strength": 2}
    assert not executed(mine), "reading an audit runs nothing"


def test_a_file_runs_once_and_again_when_it_was_edited(mine: Path) -> None:
    first = attacks.find("mine.py:Mine")
    assert attacks.find(f"{mine}:Mine") is attacks.find("mine.py:Mine") is first
    assert probes.find("mine.py:Nearest") and executed(mine) == 1
    before = first().entry()["code"]
    mine.write_text(FILE.replace("how strong", "how_strong"))  # of the same length, and within a second
    edited = attacks.find("mine.py:Mine")
    assert edited is not first and executed(mine) == 2
    assert edited.model_fields["strength"].description == "how_strong"
    assert edited().entry()["code"] != before == first().entry()["code"]
    assert not list(mine.parent.glob("__pycache__")), "no bytecode beside the user's file"


def test_a_file_that_brings_a_class_of_its_neighbour(mine: Path) -> None:
    Path("neighbour_of_brings.py").write_text(FILE.replace("my-flip", "their-flip"))
    Path("brings.py").write_text("from neighbour_of_brings import Mine\n")
    code = attacks.find("brings.py:Mine")().entry()["code"]
    digests = [
        hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16] for name in ("brings.py", "neighbour_of_brings.py")
    ]
    assert code == f"{digests[0]}+neighbour_of_brings:Mine@{digests[1]}"
    del sys.modules["neighbour_of_brings"]


def test_a_class_in_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "their_methods"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "flips.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    attack = attacks.configure("their_methods.flips:Mine", {})
    assert sys.path == path
    digest = hashlib.sha256(FILE.encode()).hexdigest()[:16]
    assert attack.entry()["code"] == f"their_methods.flips:Mine@{digest}"
    assert str(MethodSpec.of(attack)) == "their_methods.flips:Mine"


def test_a_class_itself(mine: Path) -> None:
    found = attacks.find("mine.py:Mine")
    assert attacks.find(attacks.find("exact")) is attacks.find("exact")
    assert "code" not in attacks.find("exact")().entry()

    class Local(Filter):
        """A filter of a notebook."""

        name = "local"

        def score(self, rows: Any, seed: int = 0) -> Any:
            return rows.z[:, 0].double()

    own = defences.configure(Local, {})
    assert own.entry()["code"].startswith(f"{__name__}:test_a_class_itself.<locals>.Local@")
    with pytest.raises(SpecError, match=r"a class that extends Filter.*; got Mine, which extends LabelFlip"):
        defences.find(found)


def test_a_child_of_a_plug_in_is_not_its_parent(mine: Path) -> None:
    class Child(attacks.find("mine.py:Mine")):  # type: ignore[misc]
        """Another method."""

        name = "child"

    assert reference_of(Child) == "child" and "code" not in Child().entry()


@pytest.mark.parametrize(
    ("find", "name", "message"),
    [
        (attacks.find, "no.py:Mine", "attack no.py:Mine: a Python file; got no file at no.py"),
        (attacks.find, "mine.py", "attack: a class of mine.py; got the file alone; name it, as in mine.py:Mine"),
        (
            attacks.find,
            "mine.py:Yours",
            "attack mine.py:Yours: a class of mine.py; got no 'Yours'; it has Mine, Unfinished, Again.",
        ),
        (
            defences.find,
            "mine.py:yours",
            "got no 'yours'; it has Sphere2, Nameless, Loud, Ours, Coded.",
        ),
        (attacks.find, "mine.py:Sphere2", "extends LabelledAttack or TargetedAttack or PretrainingAttack or Weight"),
        (attacks.find, "mine.py:Sphere2", "got Sphere2, which extends Filter; extend it."),
        (attacks.find, "mine.py:Plain", "got Plain, which extends nothing"),
        (attacks.find, "mine.py:make", "got a function"),
        (probes.find, "mine.py:Mine", "a class that extends Probe or ImageProbe; got Mine"),
        (
            lambda name: defences.find(name, "scan"),
            "mine.py:Sphere2",
            "a class that extends Scan;",
        ),
        (attacks.find, "mine.py:Unfinished", "a class with the methods of its base; got no poison"),
        (defences.find, "mine.py:Nameless", "a class attribute `name` in small letters, digits and hyphens; got none"),
        (defences.find, "mine.py:Loud", "hyphens; got 'loud filter'"),
        (attacks.find, "mine.py:Again", "a name that is not one of ours; got 'label-flip', as foretaste.attacks."),
        (defences.find, "mine.py:Ours", "got 'dpa', as foretaste.defences.certified.dpa:DPA is called"),
        (lambda name: defences.find(name, "filter"), "mine.py:Ours", "got 'dpa', as another of Foretaste's is called"),
        (defences.find, "mine.py:Coded", "fields other than name, code, origin; got a field code"),
        (attacks.find, "no_such_package.things:Mine", "got ModuleNotFoundError: No module named 'no_such_package'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_plug_in_is_one_line(mine: Path, find: Any, name: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        find(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n1 / 0\n", "got ZeroDivisionError: division by zero (line 2 of broken.py)"),
        ("\n\ndef f(:\n", "got SyntaxError: invalid syntax (line 3 of broken.py)"),
        ("def f():\n    raise KeyError('k')\n\nf()\n", "got KeyError: 'k' (line 2 of broken.py)"),
        ("import nowhere_to_be_found\n", "ModuleNotFoundError: No module named 'nowhere_to_be_found' (line 1 of"),
        ("raise SystemExit(3)\n", "got SystemExit: 3 (line 1 of broken.py)"),
        ("from foretaste.attacks.base import LabelledAttack\nclass A(LabelledAttack):\n    x = 3\n", "PydanticUser"),
    ],
    ids=["zero", "syntax", "deep", "import", "exit", "pydantic"],
)
def test_a_file_that_fails_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text(text)
    modules = set(sys.modules)
    for _ in range(2):
        with pytest.raises(SpecError) as caught:
            attacks.find("broken.py:A")
        assert "attack broken.py:A: code that can be imported; " in str(caught.value)
        assert message in str(caught.value)
    assert not [name for name in set(sys.modules) - modules if name.startswith("foretaste_user_")]


def test_a_field_that_is_wrong_says_how_to_see_the_fields(mine: Path) -> None:
    with pytest.raises(SpecError, match=r"my-flip: fields labels, strength; got strenght = 3 .*list mine\.py:Mine`"):
        attacks.configure("mine.py:Mine", {"strenght": 3})


@pytest.mark.parametrize(
    ("find", "name", "suggestion"),
    [
        (attacks.find, "exat", "did you mean exact? See `foretaste list`."),
        (defences.find, "sphera", "did you mean sphere? See `foretaste list`."),
        (probes.find, "mpl", "did you mean mlp? See `foretaste list`."),
        (attacks.find, "nonsense", "; see `foretaste list`."),
    ],
)
def test_unknown_names_get_a_suggestion(find: Any, name: str, suggestion: str) -> None:
    with pytest.raises(SpecError, match=f"one of .*; got '{name}'") as caught:
        find(name)
    assert str(caught.value).endswith(suggestion)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that brings methods, one of which has a name of ours."""
    folder = tmp_path / "site"
    for name, points in {
        "their_poisons": "[foretaste.attacks]\nmy-flip = their_poisons:Mine\nexact = their_poisons:Mine\n"
        "broken = their_poisons.broken:Mine\ntwice = their_poisons:Mine\n"
        "[foretaste.defences]\nmy-filter = their_poisons:Sphere2\n"
        "[foretaste.probes]\nmy-probe = their_poisons:Nearest\n",
        "more_poisons": "[foretaste.attacks]\ntwice = their_poisons:Unfinished\n"
        "[foretaste.defences]\nmy-filter = their_poisons:Sphere2\n",
    }.items():
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
    (folder / "their_poisons").mkdir()
    (folder / "their_poisons" / "__init__.py").write_text(FILE)
    (folder / "their_poisons" / "broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "their_poisons"]:
        del sys.modules[name]


def test_entry_points_of_installed_packages(package: Path) -> None:
    attack = attacks.configure("my-flip", {"strength": 2})
    digest = hashlib.sha256(FILE.encode()).hexdigest()[:16]
    assert attack.entry()["code"] == f"their_poisons:Mine@{digest}"
    assert str(MethodSpec.of(attack)) == "my-flip:strength=2.0"
    assert defences.find("my-filter").name == "my-filter"
    assert probes.find("my-probe").name == "my-probe"
    assert attacks.find("exact").__module__ == "foretaste.attacks.labelled.exact", "our own names win"
    with pytest.raises(SpecError, match="their_poisons:Mine of their-poisons and their_poisons:Unfinished of more-"):
        attacks.find("twice")
    with pytest.raises(SpecError, match=r"attack broken: .*got ZeroDivisionError: .*\(their_poisons\.broken:Mine of"):
        attacks.find("broken")
    with pytest.raises(SpecError, match=r"one of label-flip, .*, my-flip, .*got 'my-flap'; did you mean my-flip\?"):
        attacks.find("my-flap")


def test_list_shows_installed_plug_ins_and_imports_none(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list") == 0
    text = capsys.readouterr().out
    assert "attacks of installed packages\n" in text and "\n  my-flip  their_poisons:Mine of their-poisons\n" in text
    assert "\n  exact    their_poisons:Mine of their-poisons; not used, the name is ours\n" in text
    assert "defences of installed packages\n  my-filter  their_poisons:Sphere2 of " in text
    assert "their_poisons" not in sys.modules
    for name, flag in {"my-flip": "--strength", "my-filter": "--power", "my-probe": "--shrink"}.items():
        assert command("list", name) == 0
        assert f"  {flag}  " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("mine.py:Mine", ["--strength  float > 0, default 1.0", "how strong", "audit --attacks mine.py:Mine:FIELD"]),
        ("mine.py:Sphere2", ["--power  int >= 1, default 2", "foretaste audit --defences mine.py:Sphere2:FIELD=VALUE"]),
        ("mine.py:Nearest", ["--shrink", "foretaste audit --probes mine.py:Nearest:FIELD=VALUE"]),
    ],
)
def test_list_shows_the_fields_of_a_file(
    mine: Path, name: str, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("list", name) == 0
    text = capsys.readouterr().out
    assert all(part in text for part in shown)


def test_list_of_what_is_no_method(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list", "mine.py:Plain") == 2
    assert "list mine.py:Plain: a class that extends LabelledAttack or" in capsys.readouterr().err
    assert command("list", "exat") == 2
    assert "did you mean exact?" in capsys.readouterr().err


def test_an_audit_with_plug_ins_of_every_kind(world: Path, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "--features", world / "F.npz", "--validation", world / "V.npz", "--test", world / "T.npz"]
    words += ["--attacks", "mine.py:Mine:strength=2,label-flip", "--budgets", "0.1", "--seeds", 1]
    words += ["--probes", "mine.py:Nearest,exact", "--defences", "mine.py:Sphere2:power=3,sphere"]
    assert command(*words, "--out", "out") == 0
    lines = [json.loads(line) for line in Path("out/record.jsonl").read_text().splitlines()]
    assert [line["attack"] for line in lines] == ["none", "my-flip", "label-flip"]
    digest = hashlib.sha256(FILE.encode()).hexdigest()[:16]
    spec = lines[1]["spec"]
    assert spec["attack"] == {"name": "my-flip", "labels": "random", "strength": 2.0, "code": digest}
    assert spec["base"]["probes"][0] == {"name": "my-probe", "shrink": 0.0, "code": digest}
    assert spec["base"]["defences"][0] == {"name": "my-filter", "power": 3, "code": digest}
    assert "code" not in lines[2]["spec"]["attack"]
    assert list(lines[1]["scores"]) == ["my-probe", "exact"]
    assert "my-filter:power=3" in json.dumps(lines[1])
    assert "mine.py:Mine:strength=2.0" in lines[1]["command"]
    capsys.readouterr()
    assert command(*words, "--out", "out") == 0
    assert "3 of 3 trials are in the record already" in capsys.readouterr().err
    mine.write_text(FILE + "# edited\n")
    assert command(*words, "--out", "out") == 2
    assert "a new folder, or one of this audit; got trials on another probes" in capsys.readouterr().err


def test_looking_names_up_needs_no_torch() -> None:
    code = "import sys, foretaste.plugins, foretaste.audits.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_base_of_a_kind_exists() -> None:
    for base in (*attacks.BASES, *probes.BASES, *defences.BASES.values()):
        assert isinstance(plugins.at(base), type)
