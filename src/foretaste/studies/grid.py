"""The grid of a study's plan: encoders, data and questions, and the audits that their products are. A pure function.

A grid reads no file and needs no audit: what an audit's keys mean is checked by who runs it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from foretaste.errors import SpecError

FOLDER = "{encoder}-{data}-{question}"


class Part(BaseModel):
    """One audit of a study.

    Attributes:
        scenario: whether the head is trained on the data set that the encoder was trained on.
        encoder: its short name in the study's tables.
        data: the data set's.
        knowledge: what the attacker knows, in words; `full` (all training rows and the encoder) counts for the claims.
        question: what the audit is for, in words; `headline` counts for the goals of the study `pacl`, and
            `certificates` and `pixels` have tables of their own in the study `defences`.
        audit: keys of an audit, over the study's common ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    scenario: Literal["same data", "transfer"]
    encoder: str
    data: str
    knowledge: str = "full"
    question: str = "headline"
    audit: dict[str, Any] = Field(default={})


class Layer(BaseModel):
    """What one value of an axis brings to the audits that it is in.

    Attributes:
        audit: keys of an audit; those of data stand over those of the encoder, those of the question over both.
        words: what `{word}` in the keys of an audit stands for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    audit: dict[str, Any] = Field(default={})
    words: dict[str, Any] = Field(default={})


class EncoderLayer(Layer):
    """An encoder, and the name of the data that it was trained on: with these the scenario is `same data`."""

    trained_on: str = ""


class DataLayer(Layer):
    """A data set; `called` is its name in tables where that is not its name in folders."""

    called: str = ""


class QuestionLayer(Layer):
    """What is asked; fields as of `Part`."""

    knowledge: str = "full"
    question: str = "headline"


class Block(BaseModel):
    """Every named encoder with every named data set and question; questions change fastest, encoders slowest.

    Attributes:
        encoders, data, questions: names of the plan.
        audit: keys over all others.
        folder: name of an audit's folder, with `{encoder}`, `{data}` and `{question}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    encoders: tuple[str, ...] = Field(min_length=1)
    data: tuple[str, ...] = Field(min_length=1)
    questions: tuple[str, ...] = Field(min_length=1)
    audit: dict[str, Any] = Field(default={})
    folder: str = FOLDER


class Grid(BaseModel):
    """Axes, and which of their products are audits.

    Attributes:
        encoders, data, questions: the axes by name; data may be given by its `data` key alone.
        grid: blocks of audits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    encoders: dict[str, EncoderLayer] = Field(default={})
    data: dict[str, DataLayer] = Field(default={})
    questions: dict[str, QuestionLayer] = Field(default={})
    grid: tuple[Block, ...] = ()

    @field_validator("data", mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: {"audit": {"data": one}} if isinstance(one, str) else one for name, one in given.items()}

    def cells(self) -> list[tuple[str, Part]]:
        """Every audit with the name of its folder, in the order of the blocks.

        Raises:
            SpecError: a name that no axis has, or a word that nobody gives.
        """
        return [
            self._cell(block, encoder=encoder, data=data, question=question)
            for block in self.grid
            for encoder in block.encoders
            for data in block.data
            for question in block.questions
        ]

    def _cell(self, block: Block, *, encoder: str, data: str, question: str) -> tuple[str, Part]:
        own = _of("encoders", self.encoders, encoder)
        rows, asked = _of("data", self.data, data), _of("questions", self.questions, question)
        names = {"encoder": encoder, "data": data, "question": question}
        words = {**own.words, **rows.words, **asked.words, **names}
        part = Part(
            scenario="same data" if own.trained_on == data else "transfer",
            encoder=encoder,
            data=rows.called or data,
            knowledge=asked.knowledge,
            question=asked.question,
            audit=said({**own.audit, **rows.audit, **asked.audit, **block.audit}, words),
        )
        return str(said(block.folder, names)), part


L = TypeVar("L", bound=Layer)


def _of(axis: str, layers: Mapping[str, L], name: str) -> L:
    if name not in layers:
        raise SpecError(f"{axis} of a grid: one of {', '.join(layers) or 'none, since none is named'}", got=repr(name))
    return layers[name]


def said(value: Any, words: dict[str, Any]) -> Any:
    """The value with every `{word}` replaced; a text that is one word takes its type, and lists in lists are spliced.

    >>> said({"limit": "{rows}", "attacks": [["a", "b"], "c:{how}"]}, {"rows": 5, "how": "x=1"})
    {'limit': 5, 'attacks': ['a', 'b', 'c:x=1']}
    """
    if isinstance(value, dict):
        return {key: said(one, words) for key, one in value.items()}
    if isinstance(value, list):
        found = [said(one, words) for one in value]
        return [item for one in found for item in (one if isinstance(one, list) else [one])]
    if not isinstance(value, str):
        return value
    named = re.findall(r"\{(\w+)\}", value)
    if unknown := [word for word in named if word not in words]:
        raise SpecError(f"words of a grid: {', '.join(sorted(words))}", got=f"{{{unknown[0]}}} in {value!r}")
    if named and value == f"{{{named[0]}}}":
        return words[named[0]]
    return re.sub(r"\{(\w+)\}", lambda hit: str(words[hit[1]]), value)
