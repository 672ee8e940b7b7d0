"""What attacks on labelled rows need of what the attacker knows, asked before any work."""

from __future__ import annotations

import torch

from foretaste.attacks.knowledge import Knowledge
from foretaste.encoders.base import Encoder
from foretaste.errors import DataError, SpecError
from foretaste.heads.objective import Rows
from foretaste.heads.scaler import Scaler
from foretaste.images import Images


def clean_rows(known: Knowledge, scaler: Scaler) -> Rows:
    """The attacker's idea of the victim's rows in standard units; fewer of them stand for all of the victim's."""
    x = scaler.apply(known.z)
    if known.victim_rows in (None, len(known.y)):
        return Rows(x, known.y)
    return Rows(x, known.y, torch.full((len(x),), known.victim_rows / len(x)))


def require_usable(known: Knowledge) -> None:
    """What no attack on the head can work with is said before any work.

    Raises:
        DataError: a class has no row, or every feature is constant.
    """
    counts = torch.bincount(known.y, minlength=known.classes)
    if bool((counts == 0).any()):
        missing = (counts == 0).nonzero()[:, 0].tolist()
        raise DataError(
            f"attack: training rows of each of the {known.classes} classes",
            got=f"none of class {', '.join(map(str, missing[:5]))}",
            do="pass rows of every class",
        )
    if not bool((known.z.amax(0) > known.z.amin(0)).any()):
        raise DataError(
            "attack: features that differ between rows", got="zero variance in all of them", do="check the encoder"
        )


def require_own_rows(name: str, known: Knowledge) -> None:
    """For an attack that perturbs the victim's rows.

    Raises:
        DataError: the attacker holds others, or fewer.
    """
    if known.victim_rows not in (None, len(known.y)):
        raise DataError(
            f"{name}: the {known.victim_rows} rows that the victim trains on, which it perturbs",
            got=f"{len(known.y)} other rows",
            do="give the attacker the victim's rows, or use an attack that adds rows",
        )


def require_images(name: str, carrier: str, known: Knowledge) -> tuple[Images, Encoder]:
    """The images and the encoder that an attack on pixels needs.

    Raises:
        SpecError: the attacker has features alone.
    """
    if known.images is None or known.encoder is None:
        raise SpecError(
            f"{name} with carrier {carrier}: images and an encoder",
            got="features from a file",
            do="pass --data and --encoder, or --carrier features",
        )
    return known.images, known.encoder
