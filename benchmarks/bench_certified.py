"""The base learners of a certified head, all at once, beside the same heads fitted one after another by `fit_head`.

Data: 10 Gaussian classes in 128 features behind a ReLU, 5,000 rows in 250 hash partitions, so about 20 rows to a head.
Both sides standardise each head's rows by themselves and stop at a gradient of 1e-6 of that at W = 0. They take turns,
and the least of each side's times counts: other load can only add to a time. One after another takes long, so that side
fits every tenth partition and its time counts tenfold.
"""

from __future__ import annotations

from time import perf_counter

import torch

from foretaste.defences.certified.dpa import partition
from foretaste.defences.certified.subsample_heads import fit_heads
from foretaste.heads.fit import fit_head
from foretaste.runtime import make_runtime, stream

GOALS = {"speedup": (">=", 20.0), "predictions_apart": ("<=", 1e-3)}
ROWS, FEATURES, CLASSES, PARTITIONS, RIDGE, ROUNDS, EVERY = 5_000, 128, 10, 250, 5e-2, 3, 10


def main() -> dict[str, float]:
    """Seconds of each side, their ratio, and the share of predictions on 1,000 further rows that differ."""
    make_runtime()
    random = stream(0, "bench certified")
    y = torch.randint(0, CLASSES, (ROWS + 1000,), generator=random)
    centres = 0.5 * torch.randn(CLASSES, FEATURES, generator=random)
    z = torch.relu(centres[y] + torch.randn(len(y), FEATURES, generator=random))
    z, y, further = z[:ROWS], y[:ROWS], z[ROWS:]
    groups = partition(z, y, PARTITIONS)
    some = [(p, rows) for p, rows in enumerate(groups.rows.split(groups.sizes.tolist()))][::EVERY]
    together = apart = float("inf")
    for _ in range(ROUNDS):
        start = perf_counter()
        weight = fit_heads(z, y, CLASSES, groups, "exact", ridge=RIDGE, standardise=True)
        together = min(together, perf_counter() - start)
        start = perf_counter()
        alone = [fit_head(z[rows], y[rows], CLASSES, RIDGE) for _, rows in some]
        apart = min(apart, perf_counter() - start)
    differ = [
        (head.predict(further) != (further.double() @ weight[p, :, :-1].T + weight[p, :, -1]).argmax(1)).double().mean()
        for head, (p, _) in zip(alone, some, strict=True)
    ]
    apart *= PARTITIONS / len(some)
    return {
        "seconds_together": together,
        "seconds_one_after_another": apart,
        "speedup": apart / together,
        "predictions_apart": float(torch.stack(differ).mean()),
    }


if __name__ == "__main__":
    for key, value in main().items():
        print(f"{key} {value:.4g}")
