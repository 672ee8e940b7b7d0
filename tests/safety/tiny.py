"""Tiny audits of the embedded digits that between them take every road through the house."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

import foretaste
from foretaste.runtime import machine, versions
from tests.safety import doors

FOLDER = Path(__file__).with_name("records")
"""One folder per audit, as an audit leaves it: audit.yaml and record.jsonl."""
SPLIT = {"train": 0.4, "validation": 0.3, "clean": 0.3, "limit": 120}
FILTERS = [
    *("sphere", "slab", "norm", "knn:k=5", "spectral", "activation:dimensions=3", "label-quality:folds=3"),
    *("isolation-forest:trees=20:sample=16", "trimmed:rounds=2"),
]
HEADS = ["dpa:partitions=5", "bagging:learners=20:bag=10"]
OTHER = {"reference": "digits-simclr", "weights": "other.safetensors"}
COMMON: dict[str, Any] = {
    "split": SPLIT,
    "budgets": [0.1],
    "seeds": 1,
    "targets": 2,
    "device": "cpu",
    "precision": "float32",
}
AUDITS: dict[str, dict[str, Any]] = {
    "clean": {
        "attacks": ["label-flip:labels=least-likely", "exact:carrier=pixels:steps=2"],
        "probes": ["exact", "knn", "mlp:epochs=2", "sgd:epochs=2", "fine-tune:epochs=1"],
        "countermeasures": ["clipped", "pixel-clipped", "norm-filtered", "centroid-filtered"],
        "defences": [*FILTERS, "sphere:reference=clean", "influence", *HEADS, "dpa:election=run-off:partitions=3"],
    },
    "labelled": {
        "split": {"train": 0.5, "validation": 0.5, "clean": 0.0, "limit": 100},
        "attacks": [
            *("exact:steps=3", "exact:steps=2:constraint=ball:labels=chosen", "exact:against=sphere:steps=2"),
            *("exact:against=dpa/partitions=5:steps=1", "exact:against=bagging/learners=20/bag=10:steps=1"),
            *("gradient-canceling:steps=2:target=exact", "gradient-canceling:against=slab:steps=3", "tgda:steps=2"),
            "feature-targeted:steps=3:carrier=pixels:inversion_steps=2",
            "feature-targeted:steps=3:carrier=pixels:inversion=decoder:inversion_steps=2",
            *("emn:rounds=1:steps=2", "emn:rounds=1:steps=2:carrier=pixels:noise=class"),
        ],
        "budgets": [0.2],
        "countermeasures": ["clipped", "norm-filtered", "centroid-filtered"],
        "defences": ["sphere", "knn:k=5", *HEADS],
    },
    "subset": {
        "attacks": ["label-flip", "exact:steps=2", "bullseye:steps=2", "feature-collision:steps=2"],
        "attacker": {"rows": "subset", "share": 0.5},
        "countermeasures": "none",
        "defences": ["norm", "dpa:partitions=5"],
    },
    "surrogate": {
        "attacks": ["exact:steps=2:carrier=pixels", "label-flip"],
        "attacker": {"rows": "surrogate", "encoder": OTHER},
    },
    "targeted": {
        "attacks": [
            *("gradient-matching:steps=3:restarts=1", "bullseye:steps=3:bases=nearest"),
            "feature-collision:steps=3:watermark=0.2",
        ],
        "probes": ["exact", "fine-tune:epochs=1"],
        "countermeasures": ["clipped", "pixel-clipped", "centroid-filtered"],
        "defences": ["sphere", "knn:k=5"],
        "references": "training",
    },
    "pretraining": {
        "attacks": [
            *("poisoned-encoder:together=2:references=3", "interpolation:together=3"),
        ],
        "targets": 3,
        "pretraining": {"data": "digits", "limit": 96, "epochs": 1, "batch": 32},
        "defences": ["fine-tune:epochs=1:batch=32", "reconstruction:steps=3:batch=16", "drift:images=32"],
    },
    "weights": {
        "attacks": [
            "pacl:steps=3:batch=16",
            "pacl:steps=3:batch=16:together=2:references=5",
            "bad-encoder:epochs=1:batch=32",
        ],
        "probes": ["exact", "knn"],
        "shadow": {"data": "digits", "limit": 64},
        "other": OTHER,
        "null": "null",
        "defences": [
            *("fine-tune:epochs=1:batch=32", "fine-tune:epochs=1:batch=32:loss=supervised", "clp"),
            *(
                "distil:epochs=1:batch=32",
                "average:with_weights=null/first.safetensors",
                "fine-prune:epochs=1:batch=32",
            ),
            *("agreement:k=5", "views-vote:votes=2", "reconstruction:steps=3:batch=16"),
            *("drift:images=32", "decree:steps=3:images=32", "neighbours", "weight-statistics"),
        ],
    },
    "adaptive": {
        "attacks": [
            *("pacl:steps=3:batch=16:durable=1:anchor=0.1", "pacl:steps=3:batch=16:optimizer=adam"),
            *(
                "pacl:steps=3:batch=16:views=2:noise=2:shadow_share=0.9",
                "pacl-minimal:steps=4:batch=16",
            ),
            *("pacl:steps=2:batch=16:against=clp/u=2", "pacl:steps=2:batch=16:against=drift"),
            *("pacl:steps=2:batch=16:against=views-vote/votes=2", "pacl-minimal:steps=4:batch=16:edit=rank"),
            "bad-encoder:epochs=1:batch=32:trigger=2",
        ],
        "targets": 1,
        "defences": ["clp:u=2", "views-vote:votes=2", "drift:images=32"],
    },
    "features": {
        "features": "F.npz",
        "split": {"train": 0.5, "validation": 0.3, "clean": 0.2},
        "attacks": ["label-flip", "exact:steps=2:labels=chosen", "gradient-canceling:steps=2"],
        "seeds": 2,
        "defences": ["sphere", "influence", *HEADS],
    },
}


def spec(name: str) -> doors.AuditSpec:
    """One of the audits; its paths are relative to the folder that `furnish` filled."""
    return doors.AuditSpec.make({**COMMON, **AUDITS[name]}, name)


def furnish(folder: Path) -> None:
    """Write what the audits read: a second encoder, two clean ones, features. The same bytes on every machine."""
    source = Path(foretaste.__file__).parent / "encoders" / "assets" / "digits-simclr.safetensors"
    weights = load_file(source)
    (folder / "null").mkdir()
    for seed, (path, share) in enumerate([("other", 0.3), ("null/first", 0.02), ("null/second", 0.04)]):
        random = np.random.default_rng(seed)
        moved = {
            key: value * (1 + share * random.integers(-100, 101, value.shape) / 100).astype(np.float32)
            if value.dtype == np.float32
            else value
            for key, value in sorted(weights.items())
        }
        save_file(moved, folder / f"{path}.safetensors")
    x, y = load_digits(return_X_y=True)
    np.savez(folder / "F.npz", z=x[:200, 10:30].astype(np.float32), y=y[:200])


def outcome(folder: Path) -> list[dict[str, Any]]:
    """What an audit left, less seconds, machine and versions; images by their digest."""
    return [stripped(record) for record in doors.read(folder)]


def stripped(record: doors.TrialRecord) -> dict[str, Any]:
    """A trial without what may differ between two runs on one machine."""
    found = record.model_dump(mode="json", exclude={"seconds", "machine", "versions", "command"})
    for exhibit in found["exhibits"]:
        exhibit |= {key: seen(exhibit[key]) for key in ("poison_png", "base_png")}
    return {**found, "command": record.command.replace(record.command.split()[2], "audit.yaml")}


def seen(png: str) -> str:
    """The digest of an image in base64, of its pixels; one that is a digest already stays."""
    if png.startswith("sha256 "):
        return png
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        return f"sha256 {hashlib.sha256(image.tobytes()).hexdigest()[:16]}"


@contextmanager
def calm() -> Iterator[None]:
    """One thread, as when the references were made."""
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def made_on() -> dict[str, str]:
    """What decides the bits of a float."""
    found = {"cpu": machine()["cpu"], **versions()}
    return {key: value for key, value in found.items() if key not in ("python", "foretaste")}
