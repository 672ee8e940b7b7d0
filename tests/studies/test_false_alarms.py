"""Alarms that scans raise for clean encoders: counted beside ranks by hand, and by the script as somebody runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scripts import clean_encoders, false_alarms

from foretaste.defences.scans.base import Finding
from foretaste.defences.scans.drift import Drift
from foretaste.defences.scans.weight_statistics import WeightStatistics
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.encoders.weights import save_encoder


def test_each_of_the_null_is_judged_by_the_others_and_strangers_by_all() -> None:
    """Scores 0 to 18: of 18 others, 18 - k are at least as high as score k. A stranger at 17.5 is below one of 19."""
    pool = [Finding(float(k)) for k in range(19)] + [Finding(17.5), Finding(100.0), Finding(-1.0)]
    found = false_alarms.alarms(Drift(), pool, [false_alarms.OWN] * 19 + ["far"] * 3)
    assert found[false_alarms.OWN]["rates"] == [(1 + 18 - k) / 19 for k in range(19)]
    assert found["far"]["rates"] == [2 / 20, 1 / 20, 20 / 20]
    assert found["far"]["alarms"]["0.05"]["value"] == 1 / 3
    assert found["far"]["alarms"]["0.1"]["value"] == 2 / 3
    assert found[false_alarms.OWN]["alarms"]["0.1"]["value"] == 1 / 19


def test_a_scan_that_compares_sees_every_pool_anew() -> None:
    """The deviation of one tensor's norm from the others of its own pool, which for a stranger is the whole null."""
    pool = [Finding(0.0, statistics={"norm": value}) for value in (1.0, 1.1, 0.9, 1.05, 5.0)]
    kinds = [false_alarms.OWN] * 4 + ["far"]
    rates = false_alarms.alarms(WeightStatistics(), pool, kinds)["far"]["rates"]
    assert rates == [1 / 5], "further from the others than any of them"


def test_the_script_on_a_small_null(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (80, 16, 16, 3), dtype=np.uint8), np.arange(80) % 2
    np.savez(tmp_path / "d.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    start = build(EncoderSpec(reference="resnet18-small", width=4), (16, 16))
    save_encoder(tmp_path / "e.safetensors", start.body.state_dict(), start.card)
    shared = ["--encoder", "resnet18-small", "--width", "4", "--data", str(tmp_path / "d.npz")]
    for name, seed, count in (("null", "0", "3"), ("far", "50", "1")):
        more = ["--weights", str(tmp_path / "e.safetensors"), "--out", str(tmp_path / name), "--seed", seed]
        clean_encoders.main([*shared, *more, "--count", count, "--epochs", "1", "--batch", "8"])
    out = tmp_path / "out.json"
    more = ["--reference", str(tmp_path / "e.safetensors"), "--null", str(tmp_path / "null")]
    more += ["--suspects", str(tmp_path / "far"), "--scans", "drift,weight-statistics", "--out", str(out)]
    false_alarms.main([*shared, *more])
    found = json.loads(out.read_text())
    assert found["null"] == 3 and len(found["scans"]) == 2
    for kinds in found["scans"].values():
        assert [len(kinds[kind]["rates"]) for kind in (false_alarms.OWN, "far")] == [3, 1]
        assert all(rate in (1 / 4, 2 / 4, 3 / 4, 1.0) for rate in kinds["far"]["rates"])
