"""Whether an outcome is the one that was recorded: to the bit on the machine of the record, else within rounding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from foretaste.errors import RecordError
from foretaste.record import unpack_labels

RELATIVE, ACCURACY, LABELS = 1e-3, 2e-2, 0.95
"""Elsewhere: of a float, absolute of an accuracy, and the share of packed labels that stay."""
DIGEST = re.compile(r"^(sha256 )?[0-9a-f]{16,64}$")
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")
SHARES = {"value", "low", "high"}


def differences(recorded: Any, found: Any, *, exactly: bool, at: str = "") -> Iterator[str]:
    """What is another, as `path: recorded, found`.

    Args:
        recorded: JSON of the reference.
        found: of this run.
        exactly: floats and digests of floats too; otherwise within rounding.
        at: path so far.
    """
    if isinstance(recorded, dict) and isinstance(found, dict):
        if list(recorded) != list(found):
            yield f"{at}: keys {list(recorded)}, {list(found)}"
        for key in recorded.keys() & found.keys():
            yield from differences(recorded[key], found[key], exactly=exactly, at=f"{at}/{key}")
    elif isinstance(recorded, list) and isinstance(found, list):
        if len(recorded) != len(found):
            yield f"{at}: {len(recorded)} entries, {len(found)}"
        for index, (one, other) in enumerate(zip(recorded, found, strict=False)):
            yield from differences(one, other, exactly=exactly, at=f"{at}/{index}")
    elif recorded != found and (exactly or not _alike(recorded, found, at)):
        yield f"{at}: {recorded!r}, {found!r}"


def _alike(recorded: Any, found: Any, at: str) -> bool:
    """Whether two leaves differ by no more than rounding on another machine."""
    if "/spec/" in at or at.endswith(("/trial", "/status")):
        return False
    if isinstance(recorded, float) and isinstance(found, float):
        room = ACCURACY if at.rpartition("/")[2] in SHARES else 0.0
        return abs(recorded - found) <= max(room, RELATIVE * max(abs(recorded), abs(found)))
    if not isinstance(recorded, str) or not isinstance(found, str):
        return False
    if DIGEST.match(recorded) and DIGEST.match(found):
        return "/digests/" in at or "/exhibits/" in at
    if "/predictions" in at or at.endswith("/radii"):
        return _labels(recorded, found)
    # Sentences with measured numbers in them: the words are compared.
    return NUMBER.sub("#", recorded) == NUMBER.sub("#", found)


def _labels(recorded: str, found: str) -> bool:
    try:
        one, other = unpack_labels(recorded), unpack_labels(found)
    except RecordError:
        return False
    return len(one) == len(other) and float((one == other).mean()) >= LABELS
