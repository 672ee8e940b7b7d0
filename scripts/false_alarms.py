r"""How often scans cry wolf: clean encoders as suspects, each beside a null of clean encoders.

    python -m scripts.false_alarms --encoder resnet18-small --reference E.safetensors --width 16 --data D.npz \
        --other OTHER --null clean --suspects elsewhere --out false-alarms.json

Every encoder of the null is a suspect beside the others (leave one out), and every encoder of the other folders beside
the whole null: honest ones of another kind show what a verdict is worth where the null does not fit the suspect. A scan
raises an alarm at a rate r if its false-alarm rate is at most r, see `foretaste scan`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foretaste.audits.scan_once import like, look, null_files
from foretaste.audits.spec import MethodSpec
from foretaste.data import SplitSpec, load, whole
from foretaste.defences import configure
from foretaste.defences.scans.base import Finding, Scan, Scene
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.features.cache import FeatureCache
from foretaste.runtime import make_runtime, versions
from foretaste.statistics import false_alarm_rate, wilson

RATES = (0.05, 0.1, 0.2)
OWN = "null, leave one out"


def main(words: list[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--encoder", required=True, help="the architecture of all suspects, see foretaste list")
    flags.add_argument("--reference", type=Path, required=True, help="weights of the original")
    flags.add_argument("--width", type=int, help="of resnet18-small")
    flags.add_argument("--data", required=True, help="the test rows are scanned")
    flags.add_argument("--limit", type=int, help="most rows of the data")
    flags.add_argument("--other", help="an independent encoder, for the scans that need one")
    flags.add_argument("--null", type=Path, required=True, help="folder of clean encoders")
    flags.add_argument("--suspects", type=Path, nargs="*", default=[], help="folders of further clean encoders")
    flags.add_argument("--scans", default="drift,neighbours,weight-statistics,decree", help="with their fields")
    flags.add_argument("--out", type=Path, required=True, help="a JSON file")
    asked = flags.parse_args(words)
    _, images = whole(load(asked.data), SplitSpec(limit=asked.limit))
    sample = (images.pixels.shape[2], images.pixels.shape[3])
    own = EncoderSpec(reference=asked.encoder, weights=asked.reference, width=asked.width)
    reference = build(own, sample)
    other = None if asked.other is None else build(EncoderSpec(reference=asked.other), sample)
    scans = [_scan(words) for words in asked.scans.split(",")]
    folders = {OWN: asked.null, **{path.name: path for path in asked.suspects}}
    files = [(kind, path) for kind, folder in folders.items() for path in null_files(folder)]
    scene = Scene(make_runtime(), images, reference, other, FeatureCache(), evidence=False)
    encoders = (like(reference, own, path, sample, "--suspects") for _, path in files)
    found = look(encoders, len(files), scans, scene, 0, lambda done, total, note: print(f"{done / total:.0%} {note}"))
    kinds = [kind for kind, _ in files]
    report = {
        "command": "python -m scripts.false_alarms " + " ".join(sys.argv[1:] if words is None else words),
        "data": {"name": images.name, "rows": len(images), "digest": images.digest},
        "null": kinds.count(OWN),
        "versions": versions(),
        "scans": {repr(scan): alarms(scan, pool, kinds) for scan, pool in zip(scans, found, strict=True)},
    }
    asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def alarms(scan: Scan, pool: Sequence[Finding], kinds: Sequence[str]) -> dict[str, Any]:
    """By kind of suspect: each one's false-alarm rate beside the null, and the share at or below some rates.

    Args:
        scan: which compares.
        pool: what it saw in each encoder.
        kinds: of each encoder; those of `OWN` are the null.
    """
    rates: dict[str, list[float]] = {}
    for place, kind in enumerate(kinds):
        rest = [one for other, one in enumerate(pool) if kinds[other] == OWN and other != place]
        suspect, *null = scan.compare([pool[place], *rest])
        rate = false_alarm_rate(suspect.score, [one.score for one in null])
        assert rate is not None
        rates.setdefault(kind, []).append(rate)
    return {
        kind: {
            "rates": found,
            "alarms": {
                f"{rate:g}": wilson(sum(one <= rate for one in found), len(found)).model_dump() for rate in RATES
            },
        }
        for kind, found in rates.items()
    }


def _scan(words: str) -> Scan:
    method = MethodSpec.parse(words)
    found: Scan = configure(method.name, method.fields, "scan")
    return found


if __name__ == "__main__":
    main()
