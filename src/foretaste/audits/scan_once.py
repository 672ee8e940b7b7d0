"""From encoder files to a report: what `foretaste scan` does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal

from foretaste.audits.spec import MethodSpec
from foretaste.data import SplitSpec, load, whole
from foretaste.defences import DEFENCES, configure
from foretaste.defences.scans.base import Finding, Scan, Scene
from foretaste.defences.scans.calibrate import verdict
from foretaste.defences.scans.changes import require_same_tensors
from foretaste.defences.scans.report import ScannedData, ScannedEncoder, ScanReport, ScanResult
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.encoders.card import Card
from foretaste.encoders.spec import EncoderSpec
from foretaste.errors import EncoderError, SpecError
from foretaste.features.cache import FeatureCache
from foretaste.images import Images
from foretaste.runtime import Runtime, versions
from foretaste.statistics import false_alarm_rate

Part = Literal["test", "train"]
Watch = Callable[[int, int, str], None]
"""Called with (done, in all, what is looked at); does nothing to the result."""

FINE = 1000
"""Parts of one scan of one encoder, for the progress."""
NO_NULL = (
    "no calibrated verdict without --null: pass a folder of clean encoders (scripts/clean_encoders.py makes one); "
    "scores alone say nothing"
)


def silent(done: int, total: int, note: str) -> None:
    """The default watch: say nothing."""


@dataclass(frozen=True)
class Request:
    """What to scan and with what; see the flags of `foretaste scan`.

    Attributes:
        suspect: how to build the suspect; its architecture is that of the reference and the null.
        reference: weights of the original.
        other: how to build the independent encoder.
        null: folder with `.safetensors` files of clean encoders.
        data, data_dir, download, part, split: the images, and which of them.
    """

    suspect: EncoderSpec
    reference: Path | None = None
    other: EncoderSpec | None = None
    null: Path | None = None
    data: str | None = None
    data_dir: Path | None = None
    download: bool = False
    part: Part = "test"
    split: SplitSpec = field(default_factory=SplitSpec)
    seed: int = 0


def applicable(request: Request, needs: Sequence[str]) -> bool:
    """Whether all that a scan needs was passed."""
    return all(getattr(request, need) is not None for need in needs)


def scans_of(said: Sequence[str | Scan] | None, request: Request) -> list[Scan]:
    """The scans that were named, with their fields, or all whose needs are there.

    Raises:
        SpecError: no such scan or field; or none was named, and there is no image to look at.
    """
    if said is not None:
        named = [one if isinstance(one, Scan) else MethodSpec.parse(one) for one in said]
        return [one if isinstance(one, Scan) else configure(one.name, one.fields, "scan") for one in named]
    if request.data is None:
        expected = "--data: images to look at (a name of foretaste list, FILE.npz or a folder)"
        raise SpecError(expected, got="none", do="pass it, or --scans weight-statistics, which needs no image")
    every = [configure(name, {}, "scan") for name, entry in DEFENCES.items() if entry.kind == "scan"]
    return [one for one in every if applicable(request, one.needs)]


def run(request: Request, scans: Sequence[Scan], runtime: Runtime, watch: Watch = silent) -> ScanReport:
    """Scan the suspect, and every clean encoder of the null in the same way; beside a null the original too.

    Raises:
        SpecError: no scan, one twice, one that lacks what it needs, or a null folder that holds no clean encoder.
        DataError: the images cannot be used.
        EncoderError: an encoder cannot be built, or the reference or the null is of another architecture.
    """
    _check(request, scans)
    files = [] if request.null is None else null_files(request.null)
    images = _images(request)
    sample = (32, 32) if images is None else (images.pixels.shape[2], images.pixels.shape[3])
    suspect = build(request.suspect, sample)
    notes = [] if files else [NO_NULL]
    reference = None
    if request.reference is not None:
        reference = like(suspect, request.suspect, request.reference, sample, "--reference")
        told = [getattr(suspect.card, key) == getattr(reference.card, key) for key in ("mean", "std", "input_size")]
        if not all(told):
            notes.append("suspect and reference have other mean, std or input size; pass --mean, --std, --input-size")
    other = None if request.other is None else build(request.other, sample)
    scene = Scene(runtime, images, reference, other, FeatureCache())
    null = []
    for path in files:  # built once to know that all can be used before the work begins, and not kept: they may be many
        null.append(like(suspect, request.suspect, path, sample, "--null").card)
        if null[-1].sha256 == suspect.card.sha256:
            raise SpecError("--null: clean encoders, none of them the suspect", got=str(path), do="take it out")
    original = [reference] if files and reference is not None else []
    clean = (like(suspect, request.suspect, path, sample, "--null") for path in files)
    count = 1 + len(files)
    encoders = chain([suspect], clean, original)
    pools = look(encoders, count + len(original), scans, scene, request.seed, watch)
    return ScanReport(
        suspect=_told(suspect.card),
        reference=None if reference is None else _told(reference.card),
        other=None if other is None else _told(other.card),
        null=[_told(card) for card in null],
        data=None
        if images is None
        else ScannedData(name=images.name, part=request.part, rows=len(images), digest=images.digest),
        seed=request.seed,
        scans=[judged(scan, pool[:count], *pool[count:]) for scan, pool in zip(scans, pools, strict=True)],
        notes=notes,
        versions=versions(),
    )


def look(
    encoders: Iterable[Encoder], count: int, scans: Sequence[Scan], scene: Scene, seed: int, watch: Watch = silent
) -> list[list[Finding]]:
    """What each scan sees in each of `count` encoders: a list per scan, in the order of the encoders."""
    found: list[list[Finding]] = [[] for _ in scans]
    total, begun = FINE * len(scans) * count, 0
    for index, encoder in enumerate(encoders):
        for scan, pool in zip(scans, found, strict=True):
            label, first = (
                f"{scan.name}: {f'encoder {index} of {count - 1} beside it' if index else 'the suspect'}",
                begun,
            )

            def step(done: int, steps: int, first: int = first, label: str = label) -> None:
                watch(first + FINE * done // steps, total, label)

            watch(begun, total, label)
            pool.append(scan.scan(encoder, replace(scene, evidence=not index), seed, step))
            begun += FINE
    watch(total, total, "")
    return found


def judged(scan: Scan, pool: Sequence[Finding], original: Finding | None = None) -> ScanResult:
    """The suspect's finding, first in the pool, beside those of clean encoders; as the original's beside the same."""
    (own, *beside), fields = scan.compare(pool), scan.entry()
    null, rate = [finding.score for finding in beside], None
    if original is not None:
        first, *rest = scan.compare([original, *pool[1:]])
        rate = false_alarm_rate(first.score, [finding.score for finding in rest])
    return ScanResult(
        scan=fields.pop("name"),
        fields=fields,
        score=own.score,
        null_scores=null,
        false_alarm_rate=false_alarm_rate(own.score, null),
        original_rate=rate,
        verdict=verdict(own.score, null, rate),
        inputs=None if own.inputs is None else own.inputs.tolist(),
        evidence=own.evidence,
    )


def like(suspect: Encoder, own: EncoderSpec, path: Path, sample: tuple[int, int], flag: str) -> Encoder:
    """An encoder of the suspect's architecture, built the same way from another file.

    Args:
        suspect: as built.
        own: how it was built.
        path: the other file.
        sample: height and width of the images.
        flag: which passed the file, for messages.

    Raises:
        EncoderError: it cannot be built, or is of another architecture.
    """
    file_alone = own.weights is None and own.reference.endswith(".safetensors")
    update = {"reference": str(path)} if file_alone else {"weights": path}
    try:
        encoder = build(own.model_copy(update=update), sample)
        require_same_tensors(suspect.body.state_dict(), encoder.body.state_dict(), str(path))
    except EncoderError as error:
        raise type(error)(
            f"{flag} {path}: an encoder of the suspect's architecture",
            got=f"another, or a file that cannot be read ({error})",
            do="use encoders of one architecture and width",
        ) from error
    return encoder


def null_files(folder: Path) -> list[Path]:
    """The encoder files of a null folder, by name.

    Raises:
        SpecError: no such folder, or no `.safetensors` file in it.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise SpecError(f"--null {folder}: a folder of clean encoders", got=found, do="see scripts/clean_encoders.py")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SpecError(
            f"--null {folder}: .safetensors files of clean encoders", got="none", do="see scripts/clean_encoders.py"
        )
    return files


def _check(request: Request, scans: Iterable[Scan]) -> None:
    keys = [repr(scan) for scan in scans]
    if not keys:
        raise SpecError("--scans: one scan at least", got="none", do="see `foretaste list`")
    if len(set(keys)) < len(keys):
        raise SpecError("--scans: each one once", got=", ".join(keys), do="drop one, or give it other fields")
    for scan in scans:
        if not applicable(request, scan.needs):
            raise SpecError(
                f"{scan.name}: {', '.join(f'--{need}' for need in scan.needs)}",
                got=f"no --{next(need for need in scan.needs if getattr(request, need) is None)}",
                do="pass it, or choose other --scans",
            )


def _images(request: Request) -> Images | None:
    if request.data is None:
        return None
    rest, test = whole(load(request.data, data_dir=request.data_dir, download=request.download), request.split)
    return test if request.part == "test" else rest


def _told(card: Card) -> ScannedEncoder:
    return ScannedEncoder(name=card.name, architecture=card.architecture, sha256=card.sha256)
