"""A study's plan: which audits it is made of, each spelled out or as a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foretaste.errors import SpecError
from foretaste.method import describe
from foretaste.studies.grid import Grid, Part

Name = Literal["feature-targeted", "pacl", "defences"]


class Plan(Grid):
    """What stands in a study's file.

    Attributes:
        study: which statements are drawn from it.
        common: keys that all audits share.
        audits: those that are spelled out, by folder; they follow those of the grid.
        shared: anchors for the file's own use; not read.
    """

    study: Name
    common: dict[str, Any] = Field(default={})
    audits: dict[str, Part] = Field(default={})
    shared: Any = None

    def parts(self) -> dict[str, Part]:
        """All audits by folder.

        Raises:
            SpecError: as `Grid.cells`; or two audits with one folder, or none at all.
        """
        found: dict[str, Part] = {}
        for name, part in (*self.cells(), *self.audits.items()):
            if name in found:
                raise SpecError("audits with folders of their own", got=f"{name} twice", do="give a block its `folder`")
            found[name] = part
        if not found:
            raise SpecError("at least one audit, in grid or in audits", got="none")
        return found


class Study(BaseModel):
    """Audits by the name of their folder, each spelled out, whatever its plan was; attributes as of `Plan`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    study: Name
    common: dict[str, Any] = Field(default={})
    audits: dict[str, Part] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path) -> Self:
        """A study from its plan, a YAML file.

        Raises:
            SpecError: no such file, not YAML, unknown keys, or a grid that does not add up.
        """
        try:
            plan = Plan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
            audits = plan.parts()
        except ValidationError as error:
            keys = ", ".join(Plan.model_fields)
            raise SpecError(f"{path}: a plan with the keys {keys}", got=describe(error), do="correct it") from None
        except SpecError as error:
            raise SpecError(f"{path}: {error.expected}", got=error.got, do=error.do) from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise SpecError(f"{path}: a readable YAML file", got=reason, do="pass a study") from None
        for name in audits:
            if Path(name).name != name or name.startswith("."):
                raise SpecError(f"{path}: audits named like folders", got=repr(name), do="use letters and hyphens")
        return cls(study=plan.study, common=plan.common, audits=audits)

    def values(self, name: str) -> dict[str, Any]:
        """Keys of one of its audits, the common ones among them."""
        return {**self.common, **self.audits[name].audit}
