"""The defender's repairs in an audit: each mends the poisoned encoder with clean images, and all probes are refitted.

A repair is given the encoder, the defender's clean images and a seed. Beside what it makes of the poisoned encoder
stands what it makes of the clean one: its cost where there is no attack, and whether the clean encoder, repaired,
already gives the chosen image the wanted class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from foretaste.audits.evaluators.base import Beside, Case, Evaluator, Faces, Findings, each
from foretaste.audits.metrics import accuracy
from foretaste.audits.victim import Victim
from foretaste.defences.repairs.base import Repair
from foretaste.encoders.weights import read_state_dict
from foretaste.record import Repaired, RepairedProbe, pack_labels
from foretaste.runtime import digest_tensors
from foretaste.statistics import paired_change


@dataclass(frozen=True, eq=False)
class Outcome:
    """One repaired encoder.

    Attributes:
        predictions: test predictions int64 [k] of the probes behind it, by key; none where the repair failed.
        error: why it failed.
    """

    predictions: dict[str, Tensor]
    error: str = ""


@dataclass(frozen=True, eq=False)
class RepairEvaluator(Evaluator[Repair, Outcome]):
    """Repairs of the encoder.

    Attributes:
        read: digests of the weights that repairs read from files, by their key.
    """

    kind: ClassVar[str] = "repair"
    faces: ClassVar[Faces] = "encoder"
    defences: dict[str, Repair] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)

    @classmethod
    def opened(cls, repairs: dict[str, Repair]) -> RepairEvaluator:
        """With digests of the files that repairs read.

        Raises:
            WeightsError: a file that a repair reads cannot be read.
        """
        read = {key: digest_tensors(read_state_dict(one.reads).tensors) for key, one in repairs.items() if one.reads}
        return cls(repairs, read)

    def run(self, victim: Victim, beside: Beside | None, case: Case) -> dict[str, Outcome]:
        """See `Evaluator.run`; of the baseline by seed 0, of an attacked victim by the seed of the attack's run."""

        def make(key: str) -> Outcome:
            setting = victim.setting
            with case.stage("repair"):
                encoder = self.defences[key].mend(victim.used_encoder, setting.clean_images, case.seed, setting.runtime)
            return Outcome(victim.behind(encoder.to(setting.runtime.device), case.seed, case.stage).predictions)

        return each(self.defences, make, lambda reason: Outcome({}, reason), tolerant=beside is not None)

    def findings(self, victim: Victim, found: dict[str, Outcome], beside: Beside | None, case: Case) -> Findings:
        """See `Evaluator.findings`."""
        own = None if beside is None or not found else beside.outcomes(self, case.stage)
        return Findings(
            {
                "repaired": {
                    key: self._entry(key, victim, one, None if own is None else own[key], case)
                    for key, one in found.items()
                }
            }
        )

    def digests(self) -> dict[str, str]:
        """See `Evaluator.digests`."""
        return {f"checkpoint of {key}": digest for key, digest in self.read.items()}

    def _entry(self, key: str, victim: Victim, found: Outcome, without: Outcome | None, case: Case) -> Repaired:
        truth, probes = victim.truth, {}
        for name, now in found.predictions.items():
            steered = {}
            if case.pair is not None and without is not None:
                row, wanted = case.pair
                steered = {
                    "prediction": int(now[row]),
                    "success": int(now[row]) == wanted,
                    "clean_success": int(without.predictions[name][row]) == wanted,
                }
            right, was = now == truth, victim.predictions[name] == truth
            probes[name] = RepairedProbe(
                accuracy=accuracy(now, truth),
                change=paired_change(was.numpy(), right.numpy()),
                predictions=pack_labels(now.numpy()),
                **steered,
            )
        return Repaired(
            repair=self.defences[key].entry(),
            clean_images=len(victim.setting.clean_images),
            probes=probes,
            error=found.error,
        )
