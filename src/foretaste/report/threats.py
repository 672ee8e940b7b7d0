"""The threats on one chosen image: how each is spoken of. They never share a ranking."""

from __future__ import annotations

from dataclasses import dataclass

from foretaste.report.numbers import budget
from foretaste.report.summary import PairRow, Summary


@dataclass(frozen=True, kw_only=True)
class Threat:
    """How a threat on one chosen image is spoken of.

    Attributes:
        key: as in the record; the name of its table.
        title: heading of its part of the report.
        intro: what the attacker holds.
        how: what it does, in captions.
        means: by what an image is steered.
        where: on what the attack is made.
        unit: over what the accuracy is a mean.
        event: what a scan sees once.
        clean: the pipeline that the figures stand beside.
        twin: the same in a sentence of the verdict.
        share: what its budgets are shares of; empty where it has none.
    """

    key: str
    title: str
    intro: str
    how: str
    means: str
    where: str
    unit: str
    event: str
    clean: str
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
        key="weights",
        title="Encoder weights",
        intro="The attacker edits the encoder so that one chosen image gets a chosen class. The labelled data stay as "
        "they are. These figures do not rank against those above: the attacker holds something else.",
        how="Chosen images steered by editing the encoder",
        means="editing the encoder",
        where="on the encoder's weights",
        unit="edited encoder",
        event="edit",
        clean="the clean pipeline",
        twin="the clean encoder",
    ),
    Threat(
        key="targeted",
        title="Labelled rows against one image",
        intro="The attacker adds rows to the labelled data, or replaces some, so that one chosen image gets a chosen "
        "class. The encoder stays as it is. These figures do not rank against those of other threats.",
        how="Chosen images steered by poisoned rows of the labelled data",
        means="poisoned rows",
        where="on the labelled rows",
        unit="poisoned head",
        event="attack",
        clean="the clean pipeline",
        twin="the clean head",
        share="training rows",
    ),
    Threat(
        key="pretraining",
        title="Pre-training images",
        intro="The attacker adds unlabelled images to those that the encoder goes on learning from, so that one chosen "
        "image gets a chosen class. Everything is compared with the encoder that went on learning from the same images "
        "without poison. These figures do not rank against those of other threats.",
        how="Chosen images steered by poisoned pre-training images",
        means="poisoned pre-training images",
        where="on the pre-training images",
        unit="poisoned pre-training run",
        event="run",
        clean="the pipeline that went on learning without poison",
        twin="the encoder that went on learning without poison",
        share="pre-training images",
    ),
)
