"""The optimiser of the ascent."""

from __future__ import annotations

import subprocess
import sys

import torch

from foretaste.attacks.optimise.projected_ascent import Adam
from tests.attacks import attacks_fixture as toy


def test_adam_is_the_one_of_torch() -> None:
    draws = toy.stream(4, "gradients")
    leaf = torch.randn(5, 3, generator=draws)
    other = leaf.clone()
    ours, theirs = Adam(leaf, 0.3), torch.optim.Adam([other], lr=0.3, maximize=True)
    for step in range(20):
        leaf.grad = torch.randn(5, 3, generator=draws) * 10 ** (step % 5 - 3)
        other.grad = leaf.grad.clone()
        ours.step()
        theirs.step()
        torch.testing.assert_close(leaf, other, rtol=1e-5, atol=1e-6)


def test_exact_does_not_load_the_compiler() -> None:
    """It would cost seconds, as long as the attack."""
    code = """
import sys, torch
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.labelled.exact import Exact
from foretaste.runtime import Runtime
z, y = torch.rand(30, 2), torch.arange(30) % 3
Exact(steps=2).poison(Knowledge(z, y, z, y, 3, 1e-3, Runtime()), 4, 0)
sys.exit('torch._dynamo' in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
