"""A study: several audits that answer one question together, such as the claims of a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foretaste.audit.spec import AuditSpec
from foretaste.errors import SpecError
from foretaste.method import describe

Scenario = Literal["same data", "transfer"]


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
    scenario: Scenario
    encoder: str
    data: str
    knowledge: str = "full"
    question: str = "headline"
    audit: dict[str, Any] = Field(default={})


class Study(BaseModel):
    """Audits by the name of their folder.

    Attributes:
        study: which statements are drawn from it.
        common: keys that all audits share.
        audits: by folder.
        shared: anchors for the file's own use; not read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    study: Literal["feature-targeted", "pacl", "defences"]
    common: dict[str, Any] = Field(default={})
    audits: dict[str, Part] = Field(min_length=1)
    shared: Any = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """A study from a YAML file.

        Raises:
            SpecError: no such file, not YAML, unknown keys, or an audit that is not one.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
            found = cls.model_validate(values)
        except ValidationError as error:
            raise SpecError(f"{path}: keys study, common and audits", got=describe(error), do="correct it") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise SpecError(f"{path}: a readable YAML file", got=reason, do="pass a study") from None
        for name in found.audits:
            if Path(name).name != name or name.startswith("."):
                raise SpecError(f"{path}: audits named like folders", got=repr(name), do="use letters and hyphens")
            found.spec(name)
        return found

    def spec(self, name: str) -> AuditSpec:
        """One of its audits."""
        return AuditSpec.make({**self.common, **self.audits[name].audit}, f"study, audit {name}")
