"""The threats on one chosen image: how each is spoken of. They never share a ranking."""

from __future__ import annotations

from dataclasses import dataclass

from foretaste.report.numbers import budget
from foretaste.report.summary import PairRow, Summary


@dataclass(frozen=True)
class Threat:
    """How a threat on one chosen image is spoken of.

    Attributes:
        key: as in the record; the name of its table.
        title: heading of its part of the report.
        intro: what the attacker holds.
        how: what it does, in the caption.
        twin: what the figures stand beside.
        share: what its budgets are shares of; empty where it has none.
    """

    key: str
    title: str
    intro: str
    how: str
    twin: str
    share: str = ""

    def rows(self, summary: Summary) -> list[PairRow]:
        """Its attacks."""
        found: list[PairRow] = getattr(summary, self.key)
        return found

    def named(self, row: PairRow, join: str = " at ") -> str:
        """The row's attack, with its budget where the threat has budgets."""
        return row.name + (f"{join}{budget(row.budget)}" if self.share else "")


THREATS = (
    Threat(
        "weights",
        "Encoder weights",
        "The attacker edits the encoder so that one chosen image gets a chosen class. The labelled data stay as they "
        "are. These figures do not rank against those above: the attacker holds something else.",
        "Chosen images steered by editing the encoder",
        "the clean pipeline",
    ),
    Threat(
        "targeted",
        "Labelled rows against one image",
        "The attacker adds rows to the labelled data, or replaces some, so that one chosen image gets a chosen class. "
        "The encoder stays as it is. These figures do not rank against those of other threats.",
        "Chosen images steered by poisoned rows of the labelled data",
        "the clean pipeline",
        "training rows",
    ),
    Threat(
        "pretraining",
        "Pre-training images",
        "The attacker adds unlabelled images to those that the encoder goes on learning from, so that one chosen image "
        "gets a chosen class. Everything is compared with the encoder that went on learning from the same images "
        "without poison. These figures do not rank against those of other threats.",
        "Chosen images steered by poisoned pre-training images",
        "the pipeline that went on learning without poison",
        "pre-training images",
    ),
)
