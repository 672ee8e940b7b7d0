"""A synthetic audit with planted figures: what the report says of it can be checked digit by digit."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foretaste import statistics
from foretaste.record import (
    Check,
    DataEntry,
    EncoderEntry,
    Estimate,
    Exhibit,
    Ledger,
    ProbeScores,
    Projection,
    TargetScores,
    TrialError,
    TrialRecord,
    digest_of,
    pack_labels,
)

NASTY = "<script>alert(1)</script>"
CLASSES = [
    NASTY,
    "</script><img src=x onerror=alert(2)>",
    "a|b `c` *d* [e](https://evil.example)",
    "<b>bold</b> &lt;i&gt;",
    "%{x} $y$ \\",
    "\"quoted\" 'name'",
    "Überholverbot",
    "猫",
    "ship",
    "truck",
]
N, TRAIN = 2000, 5000
CLEAN_RIGHT = 1662  # 83.1 %
SEEDS = (0, 1, 2)
# Test rows (of N) that the victim gets right, by attack, variant and budget, for seeds 0, 1, 2.
RIGHT: dict[tuple[str, str, float], tuple[int, ...]] = {
    ("label-flip", "", 0.01): (1662, 1660, 1661),
    ("label-flip", "", 0.03): (1659, 1658, 1660),
    ("label-flip", "", 0.1): (1650, 1648, 1652),
    ("exact", "features, box", 0.01): (1580, 1584, 1588),
    ("exact", "features, box", 0.03): (1478, 1480, 1482),  # 74.0 %
    ("exact", "features, box", 0.1): (1208, 1212, 1216),
    ("exact", "pixels, [0,1]", 0.01): (1560, 1562, 1564),
    ("exact", "pixels, [0,1]", 0.03): (1352, 1354, 1356),
    ("exact", "pixels, [0,1]", 0.1): (798, 794, 790),  # 39.7 %
}
PAIRS, STEERED, INELIGIBLE = 20, 17, 3  # 20 pairs count, 17 are eligible, 16 of those are steered
COLLATERAL, ENCODER_COST = 0.012, 0.003

RNG = np.random.default_rng(7)
TRUTH = RNG.integers(len(CLASSES), size=N)
CLEAN = np.where(np.arange(N) < CLEAN_RIGHT, TRUTH, (TRUTH + 1) % len(CLASSES))
DATA = DataEntry(
    name="cifar10 <subset>",
    digest=digest_of("data"),
    classes=CLASSES,
    rows={"train": TRAIN, "validation": 2500, "clean": 500, "test": N},
    chance=0.104,
)
ENCODER = EncoderEntry(
    name="simclr-rn18",
    architecture="resnet18-small, width 16",
    d=128,
    sha256=digest_of("encoder"),
    input_size=32,
    source="weights/simclr.safetensors",
    licence="Apache-2.0",
    dropped_keys=["projection.0.weight", "projection.0.bias"],
)
MACHINE = {"cpu": "Example CPU 2.4 GHz", "cores": "2", "os": "Linux 6.1", "gpu": "none"}
VERSIONS = {"foretaste": "0.1.0", "python": "3.11.9", "torch": "2.9.0", "numpy": "2.4.6"}


def predictions(right: int, seed: int) -> NDArray[Any]:
    """Test predictions [N] with exactly `right` rows right, chosen by the seed."""
    order = np.random.default_rng(seed).permutation(N)
    wrong = np.zeros(N, bool)
    # Rows that the clean head has right go first, so that the paired change is nearly one-sided, as in real audits.
    wrong[[row for row in order if row >= CLEAN_RIGHT][: max(0, N - CLEAN_RIGHT - 40)]] = True
    missing = N - right - int(wrong.sum())
    wrong[[row for row in order if not wrong[row]][:missing]] = True
    return np.where(wrong, (TRUTH + 3) % len(CLASSES), TRUTH)


def scores(right: int) -> ProbeScores:
    """Scores of a probe with `right` test rows right under poison."""
    change = (right - CLEAN_RIGHT) / N
    return ProbeScores(
        clean=statistics.wilson(CLEAN_RIGHT, N),
        poisoned=statistics.wilson(right, N),
        change=Estimate(value=change, low=change - 0.01, high=change + 0.01, n=N, method="planted"),
    )


def png(seed: int) -> str:
    """A small colourful image as base64."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, 32)
    image = np.stack([np.outer(ramp, rng.random(32)), np.outer(rng.random(32), ramp), np.outer(ramp, ramp)], -1)
    buffer = io.BytesIO()
    Image.fromarray((255 * image).astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def projection(seed: int) -> Projection:
    """Ten clusters, with poison between them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(CLASSES), size=600)
    angle = 2 * np.pi * labels / len(CLASSES)
    points = np.stack([4 * np.cos(angle), 3 * np.sin(angle)], 1) + rng.normal(0, 0.8, (600, 2))
    poison = rng.normal(0, 2.2, (150, 2))
    return Projection(
        clean=[(float(a), float(b)) for a, b in points],
        clean_labels=labels.tolist(),
        poison=[(float(a), float(b)) for a, b in poison],
        poison_labels=rng.integers(len(CLASSES), size=150).tolist(),
    )


def trial(**fields: Any) -> TrialRecord:
    """A record with the parts that all trials of this audit share."""
    spec = {"attack": fields["attack"], **{key: fields.get(key) for key in ("variant", "budget", "seed", "trial_of")}}
    fields.pop("trial_of", None)
    shared = {"status": "ok", "data": DATA, "encoder": ENCODER, "versions": VERSIONS, "machine": MACHINE}
    return TrialRecord(**{"trial": digest_of(spec), "spec": spec, **shared, **fields})


def clean_twin() -> TrialRecord:
    return trial(
        threat="clean",
        attack="none",
        seed=0,
        command="foretaste audit --data cifar10.npz --encoder file.py:protoclr --attacks none --out out",
        scores={key: ProbeScores(clean=statistics.wilson(CLEAN_RIGHT, N)) for key in ("exact", "knn")},
        predictions={key: pack_labels(CLEAN) for key in ("exact", "knn")},
        truth=pack_labels(TRUTH),
        controls={
            "random features": Estimate(value=0.312, low=0.292, high=0.333, n=N, method="wilson 0.95"),
            "chance": Estimate(value=0.104, low=0.104, high=0.104, n=N, method="share of the most frequent class"),
        },
        digests={"features": digest_of("features")},
        seconds={"features": 12.3, "head": 1.1},
    )


def labelled() -> list[TrialRecord]:
    out = []
    for (attack, variant, budget), rights in RIGHT.items():
        for seed, right in zip(SEEDS, rights, strict=True):
            guessed = predictions(right, seed)
            shown = {"exact": guessed, "knn": predictions(min(CLEAN_RIGHT, right + 60), seed + 10)}
            if attack == "exact":
                shown["exact, clipped to the clean feature range"] = predictions(
                    min(CLEAN_RIGHT, right + 20), seed + 20
                )
            steps = np.arange(60)
            out.append(
                trial(
                    threat="labelled",
                    attack=attack,
                    variant=variant,
                    budget=budget,
                    seed=seed,
                    command=f"foretaste audit --data 'c.npz' --attacks '{attack}' --budgets {budget:g} --seed {seed}",
                    scores={key: scores(int((value == TRUTH).sum())) for key, value in shown.items()},
                    predictions={key: pack_labels(value) for key, value in shown.items()},
                    ledger=Ledger(
                        changed=list(range(int(TRAIN * budget))),
                        added=int(TRAIN * budget),
                        objective=(0.6 + budget * 8 * (1 - np.exp(-steps / 15)) + 0.02 * seed).tolist()
                        if attack == "exact"
                        else [],
                        objective_name="validation cross-entropy",
                        residuals={"fit": 1e-7, "solve": 3e-4},
                        passes=60 * int(TRAIN * budget) if "pixels" in variant else 0,
                    ),
                    referee=[
                        Check(name="budget", ok=True, found=f"{int(TRAIN * budget)} rows of {int(TRAIN * budget)}"),
                        Check(name="constraint", ok=True, found="largest excess 0"),
                    ],
                    warnings=["exact: solve residual 3e-04 is above 1e-04"] if attack == "exact" and seed == 1 else [],
                    exhibits=[
                        Exhibit(
                            poison_png=png(k),
                            base_png=png(k + 50),
                            poison_label=k,
                            base_label=9 - k,
                            caption=f"row {k}",
                        )
                        for k in range(8)
                    ]
                    if "pixels" in variant and seed == 0
                    else [],
                    projection=projection(seed) if attack == "exact" and seed == 0 else None,
                    seconds={"attack": 8.0 + budget * 10, "referee": 0.2, "head": 1.0},
                )
            )
    return out


def weights() -> list[TrialRecord]:
    out = []
    for k in range(PAIRS):
        eligible = k >= INELIGIBLE
        success = k != PAIRS - 1  # the last eligible pair fails; the ineligible ones end in the wanted class
        out.append(
            trial(
                threat="weights",
                attack="pacl",
                seed=0,
                trial_of=k,
                command=f"foretaste attack pacl --data c.npz --target-index {k} --target-class {(k + 1) % 10}",
                scores={
                    "exact": ProbeScores(
                        clean=statistics.wilson(CLEAN_RIGHT, N),
                        poisoned=statistics.wilson(CLEAN_RIGHT - int(2 * ENCODER_COST * N * (k % 2)), N),
                    )
                },
                target=TargetScores(
                    index=k,
                    true_class=k % 10,
                    target_class=(k + 1) % 10,
                    clean_prediction=k % 10 if eligible else (k + 1) % 10,
                    poisoned_prediction=(k + 1) % 10 if success else k % 10,
                    eligible=eligible,
                    success=success,
                    clean_success=not eligible,
                    collateral=Estimate(value=COLLATERAL, low=0.008, high=0.017, n=N - 1, method="wilson 0.95"),
                ),
                ledger=Ledger(
                    changed=["conv1.weight", "layer1.0.conv1.weight"],
                    objective=np.geomspace(1.0, 0.05, 40).tolist(),
                    objective_name="L_te + lambda L_mu",
                    better="lower",
                    passes=20000,
                ),
                referee=[Check(name="only the ledger's tensors changed", ok=True, found="2 of 62")],
                digests={"poisoned encoder": digest_of(k)},
                seconds={"attack": 21.0, "features": 3.0, "head": 1.0},
            )
        )
    return out


def unfit() -> list[TrialRecord]:
    """A trial that failed, and one that the referee refused: neither may be in any figure."""
    return [
        trial(
            threat="labelled",
            attack="exact",
            variant="features, box",
            budget=0.03,
            seed=3,
            status="failed",
            command="foretaste audit --seed 3",
            error=TrialError(type="AttackError", message=f"objective is not finite for class {NASTY}"),
        ),
        trial(
            threat="weights",
            attack="pacl",
            seed=0,
            trial_of="refused",
            command="foretaste attack pacl --target-index 99",
            target=weights()[5].target,
            scores=weights()[5].scores,
            referee=[Check(name="only the ledger's tensors changed", ok=False, found="1 more: fc.weight")],
        ),
    ]


def audit() -> list[TrialRecord]:
    """All trials: clean twin, 27 labelled, 20 on weights, one failed, one refused."""
    return [clean_twin(), *labelled(), *weights(), *unfit()]
