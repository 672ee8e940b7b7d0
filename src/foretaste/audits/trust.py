"""What a file asks for that the user has to say themselves: to run code that is not ours, and to use the network.

A file may come from anybody: an audit, a study's plan, a record. What is typed, or passed in Python, is the user's own
word. Nothing here imports or runs what it finds, and importing this needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foretaste.audits.spec import AuditSpec, MethodSpec
from foretaste.encoders.spec import names_code
from foretaste.errors import SpecError
from foretaste.plugins import is_code

METHODS = ("attacks", "defences", "probes")


def untrusted_code(values: Mapping[str, Any]) -> list[str]:
    """The code that values of an audit name, each with where: `attacks mine.py:Mine`, `encoder net.py:make`.

    A method by a name, also of an installed package, is no code of the file's; nor is an encoder that is a name or a
    weight file, since no card can name code.

    Args:
        values: keys and values of `AuditSpec`, in their short forms or as `AuditSpec` has them.
    """
    found = []
    for key in METHODS:
        for method in _methods(values.get(key)):
            found += [f"{key} {name}" for name in _named(method) if is_code(name)]
    attacker = values.get("attacker")
    encoders = {
        "encoder": values.get("encoder"),
        "attacker.encoder": attacker.get("encoder") if isinstance(attacker, Mapping) else None,
        "other": values.get("other"),
    }
    for key, encoder in encoders.items():
        reference = encoder.get("reference") if isinstance(encoder, Mapping) else encoder
        if isinstance(reference, str) and names_code(reference):
            found.append(f"{key} {reference}")
    return list(dict.fromkeys(found))


def check(
    values: Mapping[str, Any],
    source: str,
    *,
    trust_code: bool,
    download: bool,
    said: Mapping[str, Any] | None = None,
) -> None:
    """Refuse what a file asks for without the user's word, before anything is imported.

    Args:
        values: of the file, as for `untrusted_code`.
        source: the file, for the message.
        trust_code: the user passed `--trust-code`.
        download: the user passed `--download`.
        said: what the user typed in the place of some of the values.

    Raises:
        SpecError: the file names code, or asks for a download; the message names both, and the flag.
    """
    left = _left(values, said or {})
    if not trust_code and (named := untrusted_code(left)):
        raise SpecError(
            f"{source}: --trust-code, since the file names code to run",
            got=f"{', '.join(named)} without it",
            do="look at that code, and pass --trust-code if you trust it",
        )
    if not download and left.get("download"):
        raise SpecError(
            f"{source}: --download, since the file asks for one", got="download without it", do="pass --download"
        )


def check_spec(spec: AuditSpec, source: str, *, trust_code: bool, download: bool) -> None:
    """`check` of a whole audit that was read from a file, such as one of a study's plan.

    Raises:
        SpecError: as `check`.
    """
    check(spec.model_dump(exclude_unset=True), source, trust_code=trust_code, download=download)


def words(spec: AuditSpec) -> list[str]:
    """The flags with which a command takes the audit from its file."""
    found = ["--trust-code"] if untrusted_code(spec.model_dump()) else []
    return [*found, "--download"] if spec.download else found


def _left(values: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """The values that stay those of the file, see `cli.flags.over`."""
    left = dict(values)
    for key, own in said.items():
        theirs = left.pop(key, None)
        if key == "attacker" and isinstance(theirs, Mapping) and isinstance(own, Mapping):
            left[key] = {name: value for name, value in theirs.items() if name not in own}
    return left


def _methods(values: Any) -> list[MethodSpec]:
    items = values if isinstance(values, list | tuple) else []
    return [
        item if isinstance(item, MethodSpec) else MethodSpec.parse(item) if isinstance(item, str) else _spec(item)
        for item in items
        if isinstance(item, MethodSpec | str) or (isinstance(item, Mapping) and isinstance(item.get("name"), str))
    ]


def _spec(item: Mapping[str, Any]) -> MethodSpec:
    return MethodSpec.model_validate(dict(item))


def _named(method: MethodSpec) -> list[str]:
    """The method, and the defence that it is made against, whose fields a slash divides."""
    against = method.fields.get("against")
    return [method.name, *([MethodSpec.parse(against.replace("/", ":")).name] if isinstance(against, str) else [])]
