"""From a score to a false-alarm rate: the rank of the suspect among clean encoders, and no threshold of anyone's."""

from __future__ import annotations

from collections.abc import Sequence


def false_alarm_rate(score: float, null: Sequence[float]) -> float | None:
    """How often a clean encoder would look at least so suspicious: (1 + #{null >= score}) / (n + 1).

    If the suspect is one more draw from where the n clean encoders came from, the rate is at most a with probability
    at most a, for every a (a permutation p-value; Phipson and Smyth, "Permutation P-values Should Never Be Zero",
    2010). The least that n can give is 1 / (n + 1). None where there is no clean encoder.

    >>> false_alarm_rate(3.0, [1.0, 2.0, 3.0])
    0.5
    """
    if not null:
        return None
    return (1 + sum(value >= score for value in null)) / (len(null) + 1)


def verdict(score: float, null: Sequence[float]) -> str:
    """One sentence for the reader.

    >>> verdict(9.0, [1.0, 2.0, 3.0])
    'more suspicious than all 3 clean encoders; 3 can show no rate below 0.25'
    """
    rate = false_alarm_rate(score, null)
    if rate is None:
        return "no verdict: no clean encoders to compare with"
    above = sum(value >= score for value in null)
    if not above:
        return f"more suspicious than all {len(null)} clean encoders; {len(null)} can show no rate below {rate:.2g}"
    return f"{above} of {len(null)} clean encoders look at least as suspicious"
