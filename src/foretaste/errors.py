"""Every error that Foretaste raises on purpose.

ForetasteError
├── SpecError          a setting, flag or audit file is wrong
│   └── BudgetError    the budget leaves no row, or the constraint set is empty
├── DataError          a data file, folder or feature file cannot be used
├── EncoderError       an encoder cannot be built, or breaks its contract
│   └── WeightsError   a checkpoint cannot be read safely or does not fit
├── AttackError        an attack diverged or made no valid poison (a failed trial, never a silent result)
├── RefereeError       what an attack returned breaks its own budget, range or ledger
├── RecordError        a record file is damaged or of another format
└── ConformanceError   a method breaks a promise of its kind, see `foretaste.testing` (an AssertionError as well)

Each message has three parts: what was expected, what was found, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class ForetasteError(Exception):
    """Root of the tree. The command line turns it into one line and exit code 2.

    Args:
        expected: what the caller should have passed, starting with the name of the file, flag or argument.
        got: what was found instead.
        do: the one thing to do about it.
    """

    def __init__(self, expected: str, *, got: str = "", do: str = "") -> None:
        self.expected, self.got, self.do = expected, got, do
        parts = [expected.rstrip(".")]
        if got:
            parts.append(f"got {got}".rstrip("."))
        if do:
            parts.append(do.rstrip("."))
        super().__init__("; ".join(parts) + ".")


class SpecError(ForetasteError):
    """A setting, flag or audit file is wrong."""


class BudgetError(SpecError):
    """The budget leaves no row to poison, or the constraint set is empty."""


class DataError(ForetasteError):
    """A data file, image folder or feature file cannot be used."""


class EncoderError(ForetasteError):
    """An encoder cannot be built, or does not map float [N, 3, H, W] in [0, 1] to float [N, d]."""


class WeightsError(EncoderError):
    """A checkpoint cannot be read safely, or does not fit the network."""


class AttackError(ForetasteError):
    """An attack diverged or found no valid poison: a failed trial with its reason, never a silent result.

    Args:
        expected, got, do: as of every error.
        curve: the attack's objective until then, one value per step; the failed trial keeps it.
    """

    def __init__(self, expected: str, *, got: str = "", do: str = "", curve: Sequence[float] = ()) -> None:
        super().__init__(expected, got=got, do=do)
        self.curve = list(curve)


class RefereeError(ForetasteError):
    """What an attack returned breaks its budget, its range, its constraint or its own ledger."""


class RecordError(ForetasteError):
    """A record file is damaged or has another format."""


class ConformanceError(ForetasteError, AssertionError):
    """A method breaks a promise of its kind: which one, what was found, what to do. See `foretaste.testing`."""
