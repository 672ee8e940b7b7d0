"""Peak memory of a script, as the system sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MARKS = [
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
