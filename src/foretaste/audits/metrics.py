"""What an attack did: accuracy and its paired change, and what became of the one chosen image.

Accuracy has an interval, and stands beside that of the baseline, the victim that nobody attacked. Of a chosen image:
success, the base rate, and what else moved with it, by every probe.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from foretaste.audits.victim import Victim
from foretaste.record import Estimate, ProbeScores, Steered, TargetScores
from foretaste.runtime import stream
from foretaste.statistics import paired_change, wilson

NEIGHBOURS = 20
"""Test rows nearest to the target, by cosine of clean features; all others where there are fewer."""
COPIES = 16
"""Augmented copies of the target."""
NOISE = 4.0
"""Standard deviation of the copies' noise, in grey levels of 255."""


def accuracy(predictions: Tensor, truth: Tensor) -> Estimate:
    """Share of right predictions [n] with Wilson's interval."""
    right = predictions == truth
    return wilson(int(right.sum()), len(right))


def compare_predictions(clean: Tensor, poisoned: Tensor, truth: Tensor) -> ProbeScores:
    """Both accuracies and the paired change; all arguments are labels int64 [n] over the same test rows."""
    return ProbeScores(
        clean=accuracy(clean, truth),
        poisoned=accuracy(poisoned, truth),
        change=paired_change((clean == truth).numpy(), (poisoned == truth).numpy()),
    )


def target_scores(
    now: Victim,
    before: Victim,
    pair: tuple[int, int],
    others: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    together: int = 1,
) -> TargetScores:
    """Scores of one (test row, wanted class) pair.

    Args:
        now: the victim after the attack.
        before: the same without it.
        pair: (test row, wanted class).
        others: predictions on the test rows before and after by further keys, e.g. under countermeasures.
        together: pairs that share the attack's run.
    """
    row, wanted = pair
    truth = int(now.truth[row])
    near = nearest(before.test_z, row, NEIGHBOURS)
    pixels = copies(now.setting.split.test.pixels[row], row)
    clean, after = (one.predict(pixels) for one in (before, now))
    probes = {}
    for key, predictions in now.predictions.items():
        steered = _steered(before.predictions[key], predictions, row, wanted, truth, near)
        share, base = (wilson(int((one[key] == wanted).sum()), len(pixels)) for one in (after, clean))
        probes[key] = steered.model_copy(update={"augmented": share, "clean_augmented": base})
    for key, (old, new) in (others or {}).items():
        probes[key] = _steered(old, new, row, wanted, truth, near)
    head = {key: getattr(probes[now.setting.headline], key) for key in Steered.model_fields}
    return TargetScores(**head, index=row, true_class=truth, target_class=wanted, together=together, probes=probes)


def with_triggered(
    victim: Victim, found: TargetScores, clean: Mapping[str, Tensor], now: Mapping[str, Tensor]
) -> TargetScores:
    """The scores with the shares of test rows that bear a trigger and get the target class.

    Args:
        victim: any of the audit.
        found: without them.
        clean: predictions on the test rows with the trigger on them, without the attack, by score key.
        now: the same with it.
    """
    others = victim.truth != found.target_class
    probes = {}
    for key, one in found.probes.items():
        shares = (_share(predictions[key][others] == found.target_class) for predictions in (now, clean))
        probes[key] = one.model_copy(update=dict(zip(("triggered", "clean_triggered"), shares, strict=True)))
    head = probes[victim.setting.headline]
    update = {"triggered": head.triggered, "clean_triggered": head.clean_triggered, "probes": probes}
    return found.model_copy(update=update)


def nearest(z: Tensor, row: int, k: int) -> Tensor:
    """The k other rows of z [n, d] with the greatest cosine to row `row`, int64; fewer where there are fewer."""
    z = normalize(z)
    similarity = z @ z[row]
    similarity[row] = -torch.inf
    return similarity.topk(min(k, len(z) - 1)).indices


def copies(image: Tensor, row: int, count: int = COPIES) -> Tensor:
    """Augmented copies uint8 [count, 3, H, W] of an image uint8 [3, H, W]: shifted crops, flips and light noise.

    Crops move by up to an eighth of each side (one pixel at least) over a replicated border, every other copy on
    average is mirrored, and each pixel gets Gaussian noise of `NOISE` grey levels. The same row gives the same copies,
    whatever the attack.
    """
    height, width = image.shape[1:]
    reach = (max(1, height // 8), max(1, width // 8))
    random = stream(row, "augmented copies")
    padded = pad(image[None].float(), [reach[1], reach[1], reach[0], reach[0]], mode="replicate")[0]
    top, left, mirrored = (
        torch.randint(most, (count,), generator=random) for most in (2 * reach[0] + 1, 2 * reach[1] + 1, 2)
    )
    across = torch.arange(width)
    across = torch.where(mirrored[:, None].bool(), across.flip(0), across)  # [count, W]
    rows, columns = top[:, None] + torch.arange(height), left[:, None] + across
    crops = padded[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)  # [count, 3, H, W]
    noise = torch.randn(crops.shape, generator=random) * NOISE
    return (crops + noise).round().clamp(0, 255).to(torch.uint8)


def _steered(before: Tensor, now: Tensor, row: int, wanted: int, truth: int, near: Tensor) -> Steered:
    others = torch.arange(len(now)) != row
    moved = (before != now)[others]
    pulled = (before[near] != wanted) & (now[near] == wanted)
    return Steered(
        clean_prediction=int(before[row]),
        poisoned_prediction=int(now[row]),
        eligible=int(before[row]) == truth and wanted != truth,
        success=int(now[row]) == wanted,
        clean_success=int(before[row]) == wanted,
        collateral=_share(moved),
        neighbours=_share(pulled),
    )


def _share(bits: Tensor) -> Estimate:
    return wilson(int(bits.sum()), len(bits))
