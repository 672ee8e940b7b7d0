from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Any

import pytest

from foretaste.audits.spec import AuditSpec
from foretaste.cli import flags
from foretaste.cli.audit import audit
from foretaste.cli.lazy import COMMANDS, made
from foretaste.errors import SpecError
from tests.audits.audit_fixture import command


def test_every_field_of_the_spec_has_one_flag_or_a_reason_for_none() -> None:
    """A new field of `AuditSpec` has to be given a panel, or a reason."""
    told = [path for paths in flags.FLAGS.values() for path in paths] + list(flags.WITHOUT_FLAG)
    assert sorted(told) == sorted(flags.fields())
    assert len(flags.FLAGS) == sum(map(len, flags.PANELS.values())), "a flag in two panels"


def test_every_flag_is_a_parameter_of_the_command_with_its_text_from_the_spec() -> None:
    parameters = inspect.signature(audit).parameters
    shown = {parameter.opts[0]: parameter for parameter in made("audit").params}
    for panel, of_panel in flags.PANELS.items():
        for flag, paths in of_panel.items():
            assert flag.removeprefix("--").replace("-", "_") in parameters
            assert shown[flag].rich_help_panel == panel
            if " " not in paths and not paths.endswith(".reference"):
                text = flags.fields()[paths].description
                assert text and text[1:] in shown[flag].help
    assert "typed" not in parameters
    assert {parameter.rich_help_panel for parameter in shown.values() if parameter.opts[0] == "--out"} == {flags.OUT}


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--seeds", "Seeds 0, 1, ... of each labelled-data attack; default 3."),
        ("--budgets", "; default 0.01,0.03,0.1."),
        ("--attacks", "; default label-flip,exact,exact:carrier=pixels,pacl."),
        ("--split", "; default 0.5,0.4,0.1."),
        ("--ridge", "; default 0.001."),
        ("--defences", "; default none."),
        ("--encoder", "; default digits-simclr."),
        ("--attacker-rows", "; default full."),
        ("--other-weights", "Of --other: checkpoint that replaces the weights; nothing in it is executed."),
        ("--limit", "At most so many test rows, and so many others."),
        ("--download", "Fetch a standard data set that is not there."),
    ],
)
def test_help_texts_tell_the_defaults_of_the_spec(flag: str, text: str) -> None:
    (found,) = (parameter for parameter in made("audit").params if flag in parameter.opts)
    assert found.help.endswith(text)


def test_what_is_typed_is_what_the_spec_gets() -> None:
    typed: dict[str, Any] = {
        "data": "d.npz",
        "download": True,
        "encoder": "net.py:make",
        "mean": "0.1,0.2,0.3",
        "std": "1,1,1",
        "split": "0.6,0.3,0.1",
        "limit": 9,
        "attacks": "label-flip,exact:steps=3,",
        "budgets": "0.1,0.2",
        "pretraining": "cifar10,limit=50",
        "attacker_share": 0.2,
        "attacker_rows": "subset",
        "attacker_encoder": "theirs.py:make",
        "attacker_weights": "w.pth",
        "other": "o.py:make",
        "defences": "",
        "seeds": None,
    }
    values = flags.values_of(typed)
    assert values == {
        "data": "d.npz",
        "download": True,
        "encoder": {"reference": "net.py:make", "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]},
        "split": {"train": 0.6, "validation": 0.3, "clean": 0.1, "limit": 9},
        "attacks": ["label-flip", "exact:steps=3"],
        "budgets": [0.1, 0.2],
        "pretraining": "cifar10,limit=50",
        "attacker": {
            "rows": "subset",
            "share": 0.2,
            "encoder": {"reference": "theirs.py:make", "weights": "w.pth"},
        },
        "other": {"reference": "o.py:make"},
        "defences": [],
    }
    spec = AuditSpec.make(values)
    assert (spec.split.test, spec.seeds, spec.pretraining and spec.pretraining.limit) == (0.2, 3, 50)


def test_flags_go_over_a_file_an_encoder_as_a_whole_and_shares_singly() -> None:
    file = {
        "encoder": {"reference": "a.py:make", "width": 3},
        "split": {"seed": 3, "clean": 0.05},
        "attacker": {"rows": "subset", "encoder": {"reference": "b.py:make", "width": 2}},
        "seeds": 5,
    }
    said = flags.values_of(
        {"encoder": "c.py:make", "limit": 7, "attacker_share": 0.5, "attacker_encoder": "d.py:make", "ridge": 0.1}
    )
    assert flags.over(file, said) == {
        "encoder": {"reference": "c.py:make"},
        "split": {"seed": 3, "clean": 0.05, "limit": 7},
        "attacker": {"rows": "subset", "share": 0.5, "encoder": {"reference": "d.py:make"}},
        "seeds": 5,
        "ridge": 0.1,
    }
    assert flags.over({"split": None}, said)["split"] == {"limit": 7}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"weights": "w.pth"}, "--encoder: the encoder that the other flags are about; got --weights without it"),
        ({"input_size": 8}, "got --input-size without it"),
        ({"other_weights": "w.pth"}, "--other: the encoder that the weights are of; got --other-weights without it"),
        ({"attacker_weights": "w"}, "--attacker-encoder: the encoder that the weights are of; got --attacker-weights"),
        ({"budgets": "3%"}, "--budgets: numbers separated by commas; got '3%'"),
        ({"budgets": ""}, "--budgets: numbers separated by commas; got ''"),
        ({"encoder": "e", "mean": "1,2"}, "--mean: 3 numbers separated by commas; got '1,2'"),
        ({"split": "0.5,0.5"}, "--split: 3 numbers separated by commas"),
    ],
    ids=str,
)
def test_what_cannot_be_meant(said: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        flags.values_of(said)


@pytest.mark.parametrize("width", [80, 120])
def test_the_help_has_a_panel_for_each_question(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert command("audit", "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Arguments:", *(f"{panel}:" for panel in flags.PANELS), "Other:"]
    assert width - 20 < max(map(len, lines)) <= width
    assert "[n, d]" in " ".join(" ".join(lines).split()), "a form of arrays, not markup"
    for panel, of_panel in flags.PANELS.items():
        below = lines[lines.index(f"{panel}:") + 1 :]
        until = next(number for number, line in enumerate(below) if not line)
        assert set(of_panel) <= {line.split()[0] for line in below[:until] if line.startswith("  --")}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_the_command_itself_does(name: str) -> None:
    place, _, line = COMMANDS[name]
    module, _, attribute = place.partition(":")
    text = inspect.getdoc(getattr(import_module(module), attribute))
    assert text and text.splitlines()[0] == line
