"""Memory of a fit, as the system sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc, which is absent"
    ),
]

PREAMBLE = """
import torch
from pathlib import Path
from foretaste.heads.fit import fit_head
from foretaste.runtime import stream

def peak():
    line, = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

def data(n, d, classes):
    z = torch.empty(n, d).normal_(generator=stream(0, "memory"))
    planted = torch.randn(d, classes, generator=stream(0, "planted")) / d**0.5
    y = torch.cat([(block @ planted + torch.randn(len(block), classes)).argmax(1) for block in z.split(8192)])
    return z, y
"""


def run(script: str) -> list[float]:
    """The numbers that a script prints, from a process of its own."""
    done = subprocess.run([sys.executable, "-c", PREAMBLE + script], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def test_a_fit_needs_probabilities_and_a_few_chunks_beside_its_rows() -> None:
    before, after, ratio = run("""
fit_head(*data(5000, 64, 10), 10)  # libraries and their buffers
z, y = data(200_000, 64, 10)
before = peak()
head = fit_head(z, y, 10, overwrite=True)
print(before, peak(), head.gradient_ratio)
""")
    assert ratio <= 1e-6
    assert after - before < 200_000 * 10 * 4 + 48 * 2**20


def test_a_million_rows_of_512_features_fit_in_4_gib() -> None:
    most, ratio, accuracy = run("""
z, y = data(1_000_000, 512, 10)
head = fit_head(z, y, 10, tolerance=1e-3, overwrite=True)
new, labels = data(10_000, 512, 10)
print(peak(), head.gradient_ratio, float((head.predict(new) == labels).float().mean()))
""")
    assert ratio <= 1e-3
    assert accuracy > 0.3
    assert most < 4 * 2**30
