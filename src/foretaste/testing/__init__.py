"""Checks that a method keeps the promises of its kind: for attacks, defences and probes from outside, and for ours.

Each check mounts the method on a small toy of planted classes that is made in memory, says nothing if all is well, and
else raises a `ConformanceError` that names the promise, what was found and what to do. They take a class, a configured
value or a name (`mine.py:Mine`), and fields beside a class or a name. Keep the work small: steps=5, not 500.

>>> from foretaste import testing
>>> testing.check_attack("label-flip", draws=True)
>>> testing.check_filter("sphere")
"""

from foretaste.errors import ConformanceError
from foretaste.testing.attacks import check_attack
from foretaste.testing.certified import check_certified_head
from foretaste.testing.filters import check_filter
from foretaste.testing.guards import check_guard
from foretaste.testing.probes import check_probe
from foretaste.testing.repairs import check_repair
from foretaste.testing.scans import check_scan

__all__ = [
    "ConformanceError",
    "check_attack",
    "check_certified_head",
    "check_filter",
    "check_guard",
    "check_probe",
    "check_repair",
    "check_scan",
]
