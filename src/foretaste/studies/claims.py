"""The claims of the paper on poisoned feature extractors (Lu, Yang, Kamath, Yu, SaTML 2024), as ordered statements.

Each claim is a list of comparisons between two drops of accuracy that the same pipeline suffered at the same budget.
It holds here if the mean difference is above zero by its 95 % interval (bootstrap over the comparisons); if the
interval is below zero the opposite holds. Goals compare sums of drops as a ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste import statistics
from foretaste.record import Estimate
from foretaste.report.aggregate import grouped
from foretaste.report.numbers import budget, points

FULL = "full"
"""An attacker who knows all training rows and the encoder: the claims are about this one."""
FEWEST = 3
"""Comparisons that a claim needs."""
PAPER = ("tgda", "gradient-canceling", "feature-targeted", "emn")
INPUT = ("tgda", "gradient-canceling")


@dataclass(frozen=True)
class Entry:
    """One attack at one budget in one pipeline, over seeds.

    Attributes:
        encoder, data, scenario: the pipeline.
        attack, variant: as in the record.
        budget: added (or replaced) rows / training rows.
        knowledge: what the attacker knows, in a word.
        clean: accuracy without poison.
        drop: clean accuracy minus poisoned, mean over seeds.
        clipped: the same after poison features are clipped to the clean range; None if clipping changes nothing.
        seeds: trials behind it.
    """

    encoder: str
    data: str
    scenario: str
    attack: str
    variant: str
    budget: float
    knowledge: str
    clean: float
    drop: Estimate
    clipped: Estimate | None
    seeds: int

    @property
    def space(self) -> str:
        """`features`, `[0, 1]` or `8/255`: carrier and constraint in one word."""
        first, _, rest = self.variant.partition(", ")
        if first not in {"pixels", "generator"}:
            return first
        return "[0, 1]" if rest.startswith("[0, 1]") else rest.partition(",")[0]

    @property
    def pipeline(self) -> tuple[str, str]:
        """Encoder and data set."""
        return self.encoder, self.data

    def after(self, clipped: bool) -> float:
        """The drop, with or without the countermeasure."""
        return (self.clipped or self.drop).value if clipped else self.drop.value


@dataclass(frozen=True)
class Claim:
    """A statement, what it is measured by, and what was found.

    Attributes:
        text: the statement.
        measure: which difference (or ratio) decides.
        verdict: holds, does not hold here, or not measured.
        found: mean difference with its interval; the ratio for a goal; None if nothing could be compared.
        comparisons: how many.
        ratio: `found` is a ratio, not a difference or a share.
    """

    text: str
    measure: str
    verdict: str
    found: Estimate | None
    comparisons: int
    ratio: bool = False


def claims(entries: list[Entry]) -> list[Claim]:
    """The paper's claims, in its order."""
    return [
        _differs(
            "Transfer is more vulnerable than same data",
            "drop on transfer data minus drop on the encoder's own data, same encoder, attack and budget",
            _transfer(entries, relative=False),
        ),
        _differs(
            "The same, as a share of the clean accuracy",
            "as above, each drop over the accuracy without poison",
            _transfer(entries, relative=True),
        ),
        _differs(
            "Input-space attacks without a countermeasure are strong",
            "best drop of TGDA and gradient canceling on pixels in [0, 1] minus that of label flips",
            _against(entries, INPUT, "[0, 1]", lambda e: e.attack == "label-flip", clipped=False),
        ),
        _differs(
            "With countermeasures they are weaker than the feature-targeted attack",
            "after clipping to the clean feature range: best drop of feature-targeted minus best of TGDA and gradient "
            "canceling, pixels in [0, 1]",
            _against(
                entries,
                ("feature-targeted",),
                "[0, 1]",
                lambda e: e.attack in INPUT and e.space == "[0, 1]",
                clipped=True,
            ),
        ),
        _differs(
            "Error-minimising noise is weak against a fixed encoder",
            "best drop of TGDA and gradient canceling within 8/255 minus that of EMN within 8/255, same share of rows",
            _against(entries, INPUT, "8/255", lambda e: e.attack == "emn" and e.space == "8/255", clipped=False),
        ),
        _differs(
            "Inversion costs the feature-targeted attack much of its strength",
            "best drop of feature-targeted on features minus best drop on pixels in [0, 1]",
            _against(
                entries,
                ("feature-targeted",),
                "features",
                lambda e: e.attack == "feature-targeted" and e.space == "[0, 1]",
                clipped=False,
            ),
        ),
    ]


def goals(entries: list[Entry]) -> list[Claim]:
    """What this project set itself, as ratios of drops summed over pipelines, budget by budget."""

    def of(names: tuple[str, ...], space: str) -> Callable[[Entry], bool]:
        return lambda e: e.attack in names and e.space == space

    canceling, added = ("feature-targeted", "gradient-canceling"), tuple(name for name in PAPER if name != "emn")
    wanted = [
        (
            "exact: 3 times the damage of FT and GC in feature space",
            3.0,
            "exact",
            "features",
            of(canceling, "features"),
        ),
        ("exact: twice the paper's best attack on pixels in [0, 1]", 2.0, "exact", "[0, 1]", of(added, "[0, 1]")),
        ("exact: twice the paper's best attack within 8/255", 2.0, "exact", "8/255", of(added, "8/255")),
        (
            "FT: half of the damage on features kept on pixels in [0, 1]",
            0.5,
            "feature-targeted",
            "[0, 1]",
            of(("feature-targeted",), "features"),
        ),
    ]
    found = []
    for text, goal, name, space, others in wanted:
        for share in sorted({e.budget for e in entries}):
            pairs = _pairs([e for e in entries if e.budget == share], (name,), space, others, False)
            if pairs:
                found.append(_ratio(f"{text}, at {budget(share)}", goal, np.array(pairs)))
    return found


def _best(entries: Iterable[Entry], clipped: bool) -> float | None:
    return max((entry.after(clipped) for entry in entries), default=None)


def _cells(entries: list[Entry]) -> Iterable[list[Entry]]:
    """Entries by pipeline and budget."""
    return grouped(entries, lambda entry: (*entry.pipeline, entry.budget)).values()


def _pairs(
    entries: list[Entry], names: tuple[str, ...], space: str, others: Callable[[Entry], bool], clipped: bool
) -> list[tuple[float, float]]:
    """Best drop of the named attacks in a space, and best of the others, wherever both were measured."""
    found = []
    for cell in _cells(entries):
        one = _best((e for e in cell if e.attack in names and e.space == space), clipped)
        other = _best((e for e in cell if others(e)), clipped)
        if one is not None and other is not None:
            found.append((one, other))
    return found


def _against(
    entries: list[Entry], names: tuple[str, ...], space: str, others: Callable[[Entry], bool], *, clipped: bool
) -> list[float]:
    return [one - other for one, other in _pairs(entries, names, space, others, clipped)]


def _transfer(entries: list[Entry], *, relative: bool) -> list[float]:
    """Per encoder, attack, variant and budget: mean over transfer pipelines minus mean over same-data ones."""
    able = [e for e in entries if e.attack != "label-flip"]
    differences = []
    for group in grouped(able, lambda e: (e.encoder, e.attack, e.variant, e.budget)).values():
        drops = {
            scenario: np.mean([e.drop.value / (e.clean if relative else 1) for e in own])
            for scenario, own in grouped(group, lambda e: e.scenario).items()
        }
        if len(drops) == 2:
            differences.append(float(drops["transfer"] - drops["same data"]))
    return differences


def _differs(text: str, measure: str, differences: list[float]) -> Claim:
    if not differences:
        return Claim(text, measure, "not measured", None, 0)
    found = statistics.mean_interval(np.array(differences))
    if len(differences) < FEWEST:
        return Claim(text, measure, "too few comparisons to say", found, len(differences))
    verdict = "holds" if found.low > 0 else "does not hold here"
    if found.high < 0:
        verdict += " (the opposite does)"
    return Claim(text, measure, verdict, found, len(differences))


def _ratio(text: str, goal: float, pairs: NDArray[Any]) -> Claim:
    """Pairs [k, 2] of drops."""
    measure = f"summed drops, goal {goal:g}"
    if pairs[:, 1].sum() <= 0:
        return Claim(text, measure, "not measured", None, len(pairs))
    found = statistics.ratio_interval(pairs)
    return Claim(text, measure, "met" if found.value >= goal else "missed", found, len(pairs), ratio=True)


def table(title: str, found: list[Claim]) -> str:
    """Claims or goals as a section in Markdown."""
    lines = ["| statement | measured by | found | comparisons | verdict |", "| --- | --- | --- | ---: | --- |"]
    lines += [
        f"| {claim.text} | {claim.measure} | {_found(claim)} | {claim.comparisons} | **{claim.verdict}** |"
        for claim in found
    ]
    return f"## {title}\n\n" + "\n".join(lines)


def _found(claim: Claim) -> str:
    if claim.found is None:
        return "nothing to compare"
    e = claim.found
    if claim.ratio:
        return f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]"
    return f"{points(e.value)} [{points(e.low)}, {points(e.high)}] points"
