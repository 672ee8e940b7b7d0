"""What `foretaste list` shows, from the tables alone."""

from __future__ import annotations

from foretaste.attacks import ATTACKS
from foretaste.data.sources import SOURCES
from foretaste.encoders import ARCHITECTURES
from foretaste.errors import SpecError
from foretaste.method import Method
from foretaste.pretrain import METHODS
from foretaste.probes import PROBES


def everything() -> str:
    """All tables."""
    blocks = {
        "attacks": {name: f"[{threat}] {line}" for name, (threat, _, line) in ATTACKS.items()},
        "probes": {name: line for name, (_, line) in PROBES.items()},
        "data (--data)": {
            **SOURCES,
            "FILE.npz": "x_train, y_train, x_test, y_test, or x, y",
            "FOLDER": "FOLDER/class/*.png",
        },
        "encoders (--encoder)": dict(ARCHITECTURES),
        "pre-training (foretaste pretrain --method)": {name: line for name, (_, line) in METHODS.items()},
    }
    lines = []
    for title, rows in blocks.items():
        width = max(map(len, rows))
        lines += [title, *(f"  {name:<{width}}  {line}" for name, line in rows.items()), ""]
    return "\n".join([*lines, "foretaste list NAME shows the fields of an attack, probe or method."])


def fields_of(name: str) -> str:
    """Hyperparameters of a method: name, default and meaning; each is a flag of its command.

    Raises:
        SpecError: no such method.
    """
    from foretaste import attacks, pretrain, probes

    found: type[Method]
    if name in ATTACKS:
        found = attacks.find(name)
    elif name in PROBES:
        found = probes.find(name)
    elif name in METHODS:
        found = pretrain.find(name)
    else:
        known = ", ".join([*ATTACKS, *PROBES, *METHODS])
        raise SpecError(f"list: one of {known}", got=repr(name), do="see `foretaste list`")
    lines = [(found.__doc__ or "").strip().partition("\n")[0], ""]
    for key, field in found.model_fields.items():
        kind = getattr(field.annotation, "__name__", None) or str(field.annotation)
        kind = str(field.annotation).replace("typing.", "") if "Literal" in str(field.annotation) else kind
        lines.append(f"  --{key.replace('_', '-')}  {kind}, default {field.default}\n      {field.description or ''}")
    return "\n".join(lines)
