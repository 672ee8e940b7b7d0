"""`foretaste.list_attacks` and its like: what there is, from the tables and from installed packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foretaste import plugins
from foretaste.attacks import ATTACKS
from foretaste.attacks import GROUP as ATTACK_GROUP
from foretaste.defences import DEFENCES
from foretaste.defences import GROUP as DEFENCE_GROUP
from foretaste.probes import GROUP as PROBE_GROUP
from foretaste.probes import PROBES


@dataclass(frozen=True)
class Listed:
    """A method.

    Attributes:
        name: what it is called by.
        kind: threat of an attack; kind of a defence; `probe`; `installed` where a package brings it.
        line: what it does; of an installed one, where it is.
    """

    name: str
    kind: str
    line: str


def list_attacks() -> list[Listed]:
    """Attacks by threat, our own and those of installed packages.

    >>> [attack.kind for attack in list_attacks() if attack.name == "exact"]
    ['labelled']
    """
    own = [Listed(name, threat, line) for name, (threat, _, line) in ATTACKS.items()]
    return own + _installed(ATTACK_GROUP, ATTACKS)


def list_defences() -> list[Listed]:
    """Defences by kind, our own and those of installed packages.

    >>> sorted({defence.kind for defence in list_defences()} - {"installed"})
    ['certified', 'filter', 'guard', 'repair', 'scan']
    """
    own = [Listed(name, entry.kind, entry.line) for name, entry in DEFENCES.items()]
    return own + _installed(DEFENCE_GROUP, DEFENCES)


def list_probes() -> list[Listed]:
    """The victim's heads, our own and those of installed packages.

    >>> list_probes()[0].name
    'exact'
    """
    own = [Listed(name, "probe", line) for name, (_, line) in PROBES.items()]
    return own + _installed(PROBE_GROUP, PROBES)


def _installed(group: str, own: Mapping[str, object]) -> list[Listed]:
    return [Listed(name, "installed", line) for name, line in plugins.lines(group, own).items()]
