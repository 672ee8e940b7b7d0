"""`foretaste repair` end to end, on the tiny network of the other commands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.encoders.weights import read_state_dict, save_encoder
from tests.audits.audit_fixture import command

pytestmark = pytest.mark.usefixtures("here")

NET = ["--encoder", "net.py:make"]
DATA = ["--data", "images.npz"]
QUICK = ["--epochs", 1, "--batch", 32]


@pytest.fixture
def suspect(tmp_path: Path) -> Path:
    encoder = build(EncoderSpec(reference="net.py:make"), (8, 8), seed=4)
    encoder.body.conv.weight.data[3] *= 40
    path = tmp_path / "suspect.safetensors"
    save_encoder(path, encoder.body.state_dict(), encoder.card)
    return path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "used"),
    [
        (["clp", "--u", 2], "clean data used: none"),
        (
            ["fine-prune", "--share", 0.3, "--epochs", 0, "--batch", 32, *DATA],
            "120 rows of images.npz that are not test",
        ),
        (["distil", *QUICK, *DATA], "120 rows of images.npz that are not test rows, without labels"),
        (
            ["fine-tune", *QUICK, "--loss=supervised", "--limit", 50, *DATA],
            "50 rows of images.npz that are not test rows, with",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_repaired_encoder_is_written(
    words: list[object], used: str, suspect: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = words
    before = suspect.read_bytes()
    for out in ("a", "b"):
        assert command("repair", name, suspect, *NET, *rest, "--out", tmp_path / f"{out}.safetensors") == 0
        text = said(capsys)
        assert used in text and f"then {name}" in text and f"wrote {tmp_path / out}.safetensors" in text
    first, second, old = (read_state_dict(tmp_path / f"{one}.safetensors") for one in ("a", "b", "suspect"))
    assert first.card is not None and first.card.name == "a"
    assert first.card.command.startswith(f"foretaste repair {name} suspect.safetensors --encoder net.py:make --seed 0")
    assert all(torch.equal(first.tensors[key], second.tensors[key]) for key in old.tensors)
    assert any(not torch.equal(first.tensors[key], old.tensors[key]) for key in old.tensors)
    assert suspect.read_bytes() == before
    again = build(EncoderSpec(reference="net.py:make", weights=tmp_path / "a.safetensors"), (8, 8))
    assert again.sha256() == first.card.sha256


def test_clp_takes_the_planted_channel(suspect: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "repaired.safetensors"
    assert command("repair", "clp", suspect, *NET, "--u", 2, "--out", out) == 0
    assert "1 of 8 channels zeroed, without data" in said(capsys)
    assert (read_state_dict(out).tensors["bn.weight"] == 0).nonzero()[:, 0].tolist() == [3]


def test_average_with_a_file(suspect: Path, tmp_path: Path) -> None:
    out = tmp_path / "mean.safetensors"
    words = ["average", suspect, *NET, "--with-weights", suspect, "--share=0.5"]
    assert command("repair", *words, "--out", out) == 0
    old, new = read_state_dict(suspect).tensors, read_state_dict(out).tensors
    assert all(torch.equal(old[key], new[key]) for key in old)


def test_the_card_names_the_architecture(tmp_path: Path) -> None:
    encoder = build(EncoderSpec(reference="resnet18-small", width=2))
    save_encoder(tmp_path / "small.safetensors", encoder.body.state_dict(), encoder.card)
    out = tmp_path / "repaired.safetensors"
    assert command("repair", "clp", tmp_path / "small.safetensors", "--u", 1, "--out", out) == 0
    assert build(EncoderSpec(reference=str(out))).card.options == {"width": 2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense", "S", *NET, "--out", "O"], "repair: one of fine-tune, distil, clp, fine-prune, average"),
        (["sphere", "S", *NET, "--out", "O"], "repair: one of fine-tune"),
        (["clp", "S", *NET, "--u", "-1", "--out", "O"], "clp: fields u; got u = '-1'"),
        (["clp", "S", *NET, "--nonsense", "1", "--out", "O"], "clp: fields u; got nonsense"),
        (["clp", "S", *NET, "--out", "images.npz"], "a new file that ends in .safetensors"),
        (["clp", "S", *NET, "--out", "S"], "a new file that ends in .safetensors; got one that exists"),
        (["clp", "S", *NET, "--out", "none/O"], "a file in a folder that exists; got no folder none"),
        (["clp", "none.safetensors", *NET, "--out", "O"], "no such file"),
        (["clp", "S", "--out", "O"], "which would run code"),
        (["clp", "S", "--encoder", "nonsense", "--out", "O"], "--encoder: one of"),
        (["distil", "S", *NET, "--out", "O"], "--data: clean images of your own; got none; distil needs 128 or more"),
        (
            ["distil", "S", *NET, *DATA, "--limit", "100", "--out", "O"],
            "at least 128 clean images of the owner's own; got 100",
        ),
        (["average", "S", *NET, "--out", "O"], "average: another checkpoint of the same architecture; got none"),
    ],
)
def test_errors(
    words: list[str], message: str, suspect: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"S": str(suspect), "O": str(tmp_path / "out.safetensors"), "none/O": "none/out.safetensors"}
    before = suspect.read_bytes()
    assert command("repair", *(places.get(word, word) for word in words)) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out
    assert suspect.read_bytes() == before and not (tmp_path / "out.safetensors").exists()
