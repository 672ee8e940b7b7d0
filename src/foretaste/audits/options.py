"""Parts of `AuditSpec`: values as typed, and what the defender does to the training rows. Needs no torch."""

from __future__ import annotations

from typing import Any

import yaml

from foretaste.errors import SpecError

COUNTERMEASURES: dict[str, str] = {
    "clipped": "each feature of the poison clipped to the range of the clean training rows",
    "pixel-clipped": "each colour channel of the training images clipped to the range of the clean ones",
    "norm-filtered": "training rows dropped whose feature norm lies outside the 0.5 and 99.5 % quantiles",
    "centroid-filtered": "training rows dropped that are further from the centroid of their label than 99 % are",
}
"""Name -> one line; what they compute is in `audit.countermeasures`."""

DEFAULT_COUNTERMEASURES = ("clipped",)


def typed_value(text: str) -> Any:
    """A field's value as YAML reads it (8 is a number), or the text itself."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def chosen_countermeasures(said: Any) -> Any:
    """Names in the order of the table, so that the order in which they were said makes no other audit.

    Args:
        said: names, or one name; `none` alone stands for no name. What is neither is given back for pydantic to refuse.

    Raises:
        SpecError: an unknown name, one twice, or `none` beside others.
    """
    names = [said] if isinstance(said, str) else said
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return said
    known = ", ".join([*COUNTERMEASURES, "none"])
    for name in names:
        if name not in COUNTERMEASURES and name != "none":
            raise SpecError(f"countermeasures: {known}", got=repr(name), do="correct the name")
    if len(set(names)) < len(names) or ("none" in names and len(names) > 1):
        raise SpecError("countermeasures: each one once, or `none` alone", got=", ".join(names), do="drop one")
    return tuple(name for name in COUNTERMEASURES if name in names)
