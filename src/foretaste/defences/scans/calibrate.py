"""A false-alarm rate in words: the rank of the suspect among clean encoders, and no threshold of anyone's."""

from __future__ import annotations

from collections.abc import Sequence

from foretaste.statistics import false_alarm_rate


def verdict(score: float, null: Sequence[float], original: float | None = None) -> str:
    """One sentence for the reader; `original`: the false-alarm rate of the encoder that the suspect was made from.

    >>> verdict(9.0, [1.0, 2.0, 3.0])
    'more suspicious than all 3 clean encoders; 3 can show no rate below 0.25'
    >>> verdict(9.0, [1.0, 2.0, 3.0], 0.25)
    'more suspicious than all 3 clean encoders, as the original is: no sign of an edit'
    """
    rate = false_alarm_rate(score, null)
    if rate is None:
        return "no verdict: no clean encoders to compare with"
    above = sum(value >= score for value in null)
    if above:
        return f"{above} of {len(null)} clean encoders look at least as suspicious"
    if original is not None and original <= rate:
        return f"more suspicious than all {len(null)} clean encoders, as the original is: no sign of an edit"
    return f"more suspicious than all {len(null)} clean encoders; {len(null)} can show no rate below {rate:.2g}"
