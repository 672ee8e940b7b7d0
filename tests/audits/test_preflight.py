"""An audit that means little says so; and feature files that leave parts out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.audits.preflight import attack_warnings
from foretaste.audits.prepare import prepare
from foretaste.errors import DataError, SpecError
from foretaste.record import Ledger
from tests.audits.audit_fixture import audit, feature_audit, image_audit


def warned(world: Path, folder: Path, **values: Any) -> str:
    return "\n".join(audit(feature_audit(world, **values), folder).records[0].warnings)


def write_features(path: Path, z: np.ndarray, y: np.ndarray) -> Path:
    np.savez(path, z=z.astype(np.float32), y=y)
    return path


def test_random_labels_are_no_better_than_chance(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    for name in "FVT":
        write_features(tmp_path / f"{name}.npz", random.normal(size=(150, 4)), random.integers(3, size=150))
    assert "no better than the most frequent class" in warned(tmp_path, tmp_path / "out")


def test_few_test_rows_cannot_show_a_small_change(world: Path, tmp_path: Path) -> None:
    assert "75 test rows cannot tell" in warned(world, tmp_path)


def test_many_good_rows_are_no_reason_to_warn(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    centres = np.eye(3) * 4
    for name, rows in (("F", 300), ("V", 60), ("T", 1200)):
        y = random.integers(3, size=rows)
        write_features(tmp_path / f"{name}.npz", centres[y] + random.normal(size=(rows, 3)), y)
    assert warned(tmp_path, tmp_path / "out") == ""


def test_an_encoder_that_is_no_better_than_random_features_is_noted(world: Path, tmp_path: Path) -> None:
    """The network forgets nearly all of the image: one feature out of its mean grey level."""
    (tmp_path / "poor.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Mean(nn.Module):\n"
        "    def forward(self, x):\n        m = x.mean((1, 2, 3))\n        return torch.stack([m, m * m], 1)\n\n\n"
        "def make():\n    return Mean()\n"
    )
    clean, *_ = audit(
        image_audit(world, encoder=f"{tmp_path / 'poor.py'}:make", attacks=["label-flip"]), tmp_path / "out"
    ).records
    assert clean.controls["random features"].n == 60
    assert clean.controls["random features"].value >= clean.scores["exact"].clean.low
    assert any("no better than a head on random features" in text for text in clean.warnings)


def test_classes_that_the_attacker_has_no_row_of_are_noted(world: Path, tmp_path: Path) -> None:
    own = np.load(world / "V.npz")
    kept = own["y"] < 2
    validation = write_features(tmp_path / "V.npz", own["z"][kept], own["y"][kept])
    assert "lack the classes [2]" in warned(world, tmp_path / "out", validation=validation)


@pytest.mark.parametrize(
    ("ledger", "text"),
    [
        ({"objective": [1.0, 1.0, 1.0]}, "did not move (1 at the start, 1 at best)"),
        ({"objective": [1.0, 0.5, 0.2]}, "did not move"),  # higher is better: it went the wrong way
        ({"objective": [1.0, 1.5], "better": "lower"}, "did not move"),
        ({"objective": [-2.0, -2.001]}, "did not move"),
        ({"residuals": {"solve": 0.5}}, "the inner residual `solve` reached 5.0e-01"),
        ({"residuals": {"fit": 0.01}}, "the inner residual `fit` reached"),
    ],
    ids=str,
)
def test_attacks_that_did_not_work_are_noted(ledger: dict[str, Any], text: str) -> None:
    found = attack_warnings(Ledger(changed=[], **ledger))
    assert len(found) == 1
    assert text in found[0]


@pytest.mark.parametrize(
    "ledger",
    [
        {},
        {"objective": [1.0]},
        {"objective": [1.0, 0.9, 1.2, 1.1]},
        {"objective": [3.0, 1.0], "better": "lower"},
        {"residuals": {"fit": 1e-6, "solve": 1e-3, "something else": 5.0}},
    ],
    ids=str,
)
def test_attacks_that_worked_are_not_warned_of(ledger: dict[str, Any]) -> None:
    assert attack_warnings(Ledger(changed=[], **ledger)) == []


def test_an_attack_that_cannot_move_is_a_failed_trial_with_its_curve(world: Path, tmp_path: Path) -> None:
    outcome = audit(feature_audit(world, attacks=[{"name": "exact", "steps": 2, "rate": 1e-9}]), tmp_path)
    failed = outcome.records[1]
    assert (
        failed.status == "failed" and failed.error is not None and "nothing better in 2 steps" in failed.error.message
    )
    assert failed.ledger is not None and len(failed.ledger.objective) == 3


def test_an_attack_that_hardly_moves_is_warned_of() -> None:
    still, moved = (Ledger(changed=[], objective=[0.5, best, 0.4]) for best in (0.5002, 0.51))
    assert "objective did not move (0.5 at the start, 0.5002 at best)" in attack_warnings(still)[0]
    assert not attack_warnings(moved)


# Feature files that leave parts out are divided as images would be.


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"train": 36, "validation": 29, "clean": 7, "test": 18}),
        ({"validation": "V"}, {"train": 65, "validation": 60, "clean": 7, "test": 18}),
        ({"test": "T"}, {"train": 45, "validation": 36, "clean": 9, "test": 75}),
        ({"validation": "V", "test": "T"}, {"train": 90, "validation": 60, "test": 75}),
    ],
    ids=str,
)
def test_parts_of_features(given: dict[str, str], expected: dict[str, int], world: Path) -> None:
    files = {"validation": None, "test": None, **{part: world / f"{name}.npz" for part, name in given.items()}}
    parts = prepare(feature_audit(world, **files)).setting.parts
    found = {name: len(part) for name, part in parts.items()}
    assert found.keys() == expected.keys()
    assert all(abs(found[name] - rows) <= 3 for name, rows in expected.items()), found
    own = [part for name, part in parts.items() if name not in given]
    assert len({row.numpy().tobytes() for part in own for row in part.z}) == 90  # each once


def test_an_attacker_without_rows_is_an_error(world: Path) -> None:
    shares = {"train": 0.9, "validation": 0.0, "clean": 0.1}
    for spec in (
        feature_audit(world, validation=None, split=shares),
        image_audit(world, attacks=["label-flip"], split=shares),
    ):
        with pytest.raises(SpecError, match="a validation share above 0"):
            prepare(spec)


def test_feature_files_that_do_not_fit_together(world: Path, tmp_path: Path) -> None:
    own = np.load(world / "T.npz")
    narrow = write_features(tmp_path / "narrow.npz", own["z"][:, :4], own["y"])
    with pytest.raises(DataError, match=r"narrow\.npz: features \[n, 6\].*got \[n, 4\]"):
        prepare(feature_audit(world, test=narrow))
    more = write_features(tmp_path / "more.npz", own["z"], own["y"] + 1)
    with pytest.raises(DataError, match=r"more\.npz: y in \[0, 2\]"):
        prepare(feature_audit(world, validation=more))


def test_projection_of_a_single_feature_is_flat(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    for name in "FVT":
        y = random.integers(2, size=60)
        write_features(tmp_path / f"{name}.npz", (y + random.normal(0, 0.4, 60))[:, None], y)
    record = audit(feature_audit(tmp_path, attacks=["label-flip"]), tmp_path / "out").records[1]
    assert record.status == "ok", record.error
    assert {y for _, y in record.projection.clean} == {0.0}


def test_projection_is_the_one_of_principal_components(world: Path, tmp_path: Path) -> None:
    from sklearn.decomposition import PCA

    record = audit(feature_audit(world), tmp_path).records[1]
    z = np.load(world / "F.npz")["z"].astype(np.float64)
    x = (z - z.mean(0)) / z.std(0, ddof=1)
    expected = PCA(2).fit_transform(x)
    found = np.array(record.projection.clean)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)
