from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from foretaste.attacks import ATTACKS
from foretaste.audits.prepare import prepare
from foretaste.data import load
from foretaste.encoders.build import build
from foretaste.encoders.card import Card
from foretaste.encoders.spec import EncoderSpec
from foretaste.encoders.weights import CARD_KEY
from foretaste.features.file import read_features
from tests.audits.audit_fixture import command, image_audit

pytestmark = pytest.mark.usefixtures("here")

IMAGES = ["--data", "images.npz", "--encoder", "net.py:make"]


def made(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("budget", "rows"), [("0.03", 2), ("0.1", 9), ("0.29", 26), ("0.0112", 1), ("1.5", 135)])
def test_poisoned_features(budget: str, rows: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "poison.npz"
    flags = ["--features", "F.npz", "--validation", "V.npz", "--budget", budget, "--constraint", "box", "--seed", 0]
    assert command("attack", "exact", *flags, "--steps", 3, "--out", out) == 0
    poison, clean = made(out), made(Path("F.npz"))
    assert poison["z"].dtype == np.float32 and poison["z"].shape == (rows, 6)
    assert poison["y"].dtype == np.int64 and poison["y"].shape == (rows,)
    assert (poison["z"] >= clean["z"].min(0)).all() and (poison["z"] <= clean["z"].max(0)).all()
    assert (poison["y"] != clean["y"][poison["base"]]).all()
    printed = capsys.readouterr().out
    assert f"{rows} poisoned rows = floor({float(budget):g} x 90)" in printed
    assert f"wrote {out}" in printed
    assert rows == 1 or len(read_features(out, classes=3)) == rows  # a feature file like any other


def test_poisoned_images(tmp_path: Path) -> None:
    out = tmp_path / "poison.npz"
    flags = ["--carrier", "pixels", "--epsilon", 8, "--steps", 2, "--budget", 0.1, "--seed", 3]
    assert command("attack", "exact", *IMAGES, *flags, "--out", out) == 0
    poison, clean = made(out), made(Path("images.npz"))
    assert poison["x"].dtype == np.uint8 and poison["x"].shape == (12, 8, 8, 3)
    assert poison["y"].dtype == np.int64 and len(poison["y"]) == 12
    moved = poison["x"].astype(int) - clean["x_train"][poison["base"]].astype(int)
    assert 0 < np.abs(moved).max() <= 8
    assert (poison["y"] != clean["y_train"][poison["base"]]).all()
    # The file is a data set like any other.
    again = load(str(out)).train
    np.testing.assert_array_equal(again.pixels.permute(0, 2, 3, 1).numpy(), poison["x"])


def test_label_flip_takes_both_inputs(tmp_path: Path) -> None:
    for name, source in (("images", IMAGES), ("features", ["--features", "F.npz"])):
        assert command("attack", "label-flip", *source, "--budget", 0.1, "--out", tmp_path / f"{name}.npz") == 0
    images, clean = made(tmp_path / "images.npz"), made(Path("images.npz"))
    np.testing.assert_array_equal(images["x"], clean["x_train"][images["base"]])
    features, rows = made(tmp_path / "features.npz"), made(Path("F.npz"))
    np.testing.assert_array_equal(features["z"], rows["z"][features["base"]])


def test_an_attack_on_features_of_images(tmp_path: Path) -> None:
    out = tmp_path / "poison.npz"
    assert command("attack", "exact", *IMAGES, "--steps", 2, "--budget", 0.1, "--out", out) == 0
    assert made(out)["z"].shape == (12, 8)


def test_validation_images_are_the_attackers_own(tmp_path: Path) -> None:
    given = made(Path("images.npz"))
    np.savez(tmp_path / "own.npz", x=given["x_test"][:30], y=given["y_test"][:30])
    common = ["attack", "exact", *IMAGES, "--steps", 3, "--budget", 0.1]
    assert command(*common, "--out", tmp_path / "a.npz") == 0
    assert command(*common, "--validation", tmp_path / "own.npz", "--out", tmp_path / "b.npz") == 0
    a, b = made(tmp_path / "a.npz"), made(tmp_path / "b.npz")
    np.testing.assert_array_equal(a["base"], b["base"])
    assert (a["z"] != b["z"]).any()


def test_an_attack_never_reads_the_test_part(tmp_path: Path) -> None:
    """Other test images, same poison."""
    given = made(Path("images.npz"))
    other = {**given, "x_test": 255 - given["x_test"]}
    np.savez(tmp_path / "other.npz", **other)
    flags = ["--encoder", "net.py:make", "--carrier", "pixels", "--steps", 2, "--budget", 0.1]
    for data, out in (("images.npz", "a.npz"), (tmp_path / "other.npz", "b.npz")):
        assert command("attack", "exact", "--data", data, *flags, "--out", tmp_path / out) == 0
    assert digest(tmp_path / "a.npz") == digest(tmp_path / "b.npz")


@pytest.mark.parametrize(
    "words",
    [
        ["label-flip", "--features", "F.npz", "--budget", "0.2"],
        ["exact", "--features", "F.npz", "--budget", "0.2", "--steps", "3", "--labels", "chosen"],
        ["exact", *IMAGES, "--carrier=pixels", "--budget=0.1", "--steps=2"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_the_same_command_writes_the_same_bytes(words: list[str], tmp_path: Path) -> None:
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        assert command("attack", *words, "--seed", seed, "--out", tmp_path / f"{name}.npz") == 0
    a, b, c = (digest(tmp_path / f"{name}.npz") for name in "abc")
    assert a == b != c


def test_a_file_is_written_over_only_when_the_attack_is_done(tmp_path: Path) -> None:
    out = tmp_path / "poison.npz"
    out.write_text("precious")
    assert command("attack", "exact", "--features", "F.npz", "--budget", 0.0001, "--out", out) == 2
    assert out.read_text() == "precious"
    assert command("attack", "label-flip", "--features", "F.npz", "--budget", 0.1, "--out", out) == 0
    assert len(made(out)["y"]) == 9
    assert [path.name for path in tmp_path.iterdir()] == ["poison.npz"]


def steer(out: Path, *more: object) -> int:
    """pacl on the tiny network: its one matrix and kernel, few steps."""
    flags = ["--target-index", 4, "--target-class", 2, "--batch", 16, "--steps", 8, "--trainable", "all", "--seed", 0]
    return command("attack", "pacl", *IMAGES, *flags, *more, "--out", out)


def test_a_poisoned_encoder_loads_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "poisoned.safetensors"
    assert steer(out) == 0
    printed = capsys.readouterr().out
    assert "test row 4: from 1 to 2" in printed and "tensors changed" in printed
    clean = build(EncoderSpec(reference="net.py:make"), (8, 8))
    with safe_open(out, "pt") as file:
        keys = set(file.keys())
        card = Card.model_validate_json(file.metadata()[CARD_KEY])
    assert keys == set(clean.body.state_dict())
    assert card.source == "pacl on make: test row 4 to class 2, seed 0"
    poisoned = build(EncoderSpec(reference="net.py:make", weights=out), (8, 8))
    assert poisoned.card.sha256 != clean.card.sha256
    assert poisoned.card.dropped_keys == ()
    flags = ["--attacks", "label-flip", "--budgets", "0.1", "--seeds", 1, "--out", tmp_path / "audit"]
    assert command("audit", *IMAGES, "--weights", out, *flags) == 0


def test_the_same_poisoned_encoder_every_time_and_another_for_another_target(tmp_path: Path) -> None:
    a, b, c = (tmp_path / f"{name}.safetensors" for name in "abc")
    assert steer(a) == steer(b) == steer(c, "--target-index", 1) == 0
    assert digest(a) == digest(b) != digest(c)


def test_the_target_is_the_row_of_the_test_split_that_an_audit_counts(tmp_path: Path) -> None:
    """A target class by name and by number; and the test rows of the command are those of an audit."""
    given = made(Path("images.npz"))
    np.savez(tmp_path / "named.npz", classes=np.array(["cat", "dog", "3"]), **given)
    words = ["--data", tmp_path / "named.npz", "--encoder", "net.py:make", "--batch", 16, "--trainable", "all"]
    for chosen, name in (("dog", "a"), ("1", "b")):
        flags = ["--target-index", 0, "--target-class", chosen, "--steps", 3, "--out", tmp_path / f"{name}.safetensors"]
        assert command("attack", "pacl", *words, *flags) == 0
    assert digest(tmp_path / "a.safetensors") == digest(tmp_path / "b.safetensors")
    test = prepare(image_audit(Path.cwd(), attacks=["label-flip"])).setting.images.test
    np.testing.assert_array_equal(test.pixels.permute(0, 2, 3, 1).numpy(), given["x_test"])


def test_help_says_how_to_find_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("attack", "--help") == 0
    text = capsys.readouterr().out
    assert "foretaste list NAME" in text
    assert "[m, H, W, 3]" in text  # not taken for markup
    for name in ATTACKS:
        assert command("list", name) == 0
        assert f"foretaste attack {name}" in capsys.readouterr().out
