"""Forward-backward steps against the proximal point."""

from __future__ import annotations

import torch

from foretaste.attacks.targeted.forward_backward import ForwardBackward


def test_forward_backward_is_the_proximal_point_of_one_step() -> None:
    leaf, base = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])
    mover = ForwardBackward(leaf, 0.5, stay=4.0, base=base)
    leaf.grad = torch.tensor([[2.0, -1.0]])
    mover.step(torch.tensor([1.0]))
    size = 0.5 / 2  # the entry that moves most moves by the rate
    torch.testing.assert_close(leaf, torch.tensor([[1 - 2 * size, 2 + size]]) / (1 + 4 * size))


def test_forward_backward_takes_a_worse_step_back() -> None:
    leaf = torch.tensor([[1.0], [1.0]])
    mover = ForwardBackward(leaf, 8.0, stay=0.0)
    values = []
    for _ in range(12):  # h = u^2 and u^2 / 2: the first step of 8 is far too long
        weight = torch.tensor([[1.0], [0.5]])
        rows = (weight * leaf.square())[:, 0]
        values.append(rows.clone())
        leaf.grad = 2 * weight * leaf
        mover.step(rows)
    # Half as far from where it was, twice: u is 1, -7, -3 and -1, which is no worse than the start.
    assert torch.stack(values[:4])[:, 0].tolist() == [1, 49, 9, 1]
    assert torch.stack(values[:4])[:, 1].tolist() == [0.5, 24.5, 4.5, 0.5]
    assert float(values[-1].max()) < 1e-6
