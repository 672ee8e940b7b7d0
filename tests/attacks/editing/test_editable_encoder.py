"""How far an edited encoder has come."""

from __future__ import annotations

import torch

from foretaste.attacks.editing.editable_encoder import difference


def test_difference_names_what_differs() -> None:
    clean = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor(7)}
    assert difference(clean, {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor(7)})[0] == []
    changed, figures = difference(clean, {"a": torch.tensor([3.0, 5.0]), "b": torch.tensor(7)})
    assert changed == ["a"] and figures == {"l2_change": 1.0, "relative_l2_change": 0.2}
