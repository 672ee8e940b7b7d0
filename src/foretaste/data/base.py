"""`Dataset`: what a source holds, before it is split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foretaste.images import Images


@dataclass(frozen=True, eq=False)
class Dataset:
    """A source, read whole.

    Attributes:
        train: all rows that the source does not set aside for testing, in the source's own order.
        test: the source's own test rows in the source's own order; None where it has one part only.
    """

    train: Images
    test: Images | None = None
