"""Parts of a record: numbers with their intervals, and what was found of one probe, image or defence. No torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Part(BaseModel):
    """Base of the record's parts: frozen, unknown keys are errors, NaN is not a number that a record may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(Part):
    """A number with its sample size and interval, at 95 % throughout; shares and changes are fractions."""

    value: float
    low: float
    high: float
    n: int = Field(description="rows or trials behind the number")
    method: str = Field(description="how the interval was made, and its coverage")


class DataEntry(Part):
    """What the trial was run on."""

    name: str
    digest: str = Field(description="sha256 over pixels (or features) and labels")
    classes: list[str]
    rows: dict[str, int] = Field(description="rows of each part of the split: train, validation, clean, test")
    chance: float = Field(description="share of the most frequent test class")


class EncoderEntry(Part):
    """The encoder's card, as far as the report needs it."""

    name: str
    architecture: str
    d: int
    sha256: str
    input_size: int | None = None
    source: str = ""
    licence: str = ""
    dropped_keys: list[str] = Field(default=[], description="keys of the checkpoint that the encoder does not use")


class ProbeScores(Part):
    """Accuracy of one probe on the test rows: the clean twin, the poisoned one and the paired change."""

    clean: Estimate
    poisoned: Estimate | None = None
    change: Estimate | None = Field(default=None, description="poisoned minus clean, paired over the test rows")


class Dropped(Part):
    """Shares of the training rows that a filter dropped before the head was fitted."""

    reference: str = Field(
        description="rows that its thresholds are from: the defender's clean ones, or the mixed ones"
    )
    clean: Estimate = Field(description="of the clean training rows: its false positives")
    poison: Estimate | None = Field(default=None, description="of the poison: its true positives; None without poison")


class Alarm(Part):
    """A filter at one false-alarm rate: the rows that score above the threshold are dropped, and the head fitted."""

    rate: float = Field(description="share of clean rows that the threshold is set to flag, at most")
    threshold: float = Field(description="rows that score above it are flagged, in the filter's own units")
    poison: Estimate | None = Field(default=None, description="flagged share of the poison; None without poison")
    clean: Estimate = Field(description="flagged share of the clean training rows")
    scores: ProbeScores = Field(description="headline probe on the rows left; `clean`: the twin under the same filter")
    predictions: str = Field(description="its test predictions, see pack_labels")


class Screening(Part):
    """One filter of the defender's on the training rows of a trial."""

    filter: dict[str, JsonValue] = Field(description="its name and every field")
    calibration: str = Field(description="rows whose scores set the thresholds")
    calibration_rows: int
    auroc: Estimate | None = Field(
        default=None, description="chance that a poisoned row outscores a clean training row; None without poison"
    )
    alarms: list[Alarm] = Field(description="by false-alarm rate, ascending")


class CertifiedAccuracy(Part):
    """The share of test rows that a certified head gets right whatever is done to so many training rows."""

    share: float = Field(description="changes / clean training rows, or the budget that they stand for")
    changes: int = Field(description="changes of the training rows, as the head counts them")
    accuracy: Estimate = Field(description="test rows that are right with a radius of at least `changes`")


class CertifiedScores(Part):
    """One certified head on the training rows of a trial; no certificate covers an edited encoder."""

    defence: dict[str, JsonValue] = Field(description="its name and every field, with nothing left open")
    certain: bool = Field(description="the certificate holds for sure, or with a confidence over the head's own draws")
    scores: ProbeScores = Field(description="accuracy of its vote; `clean`: on the clean rows")
    predictions: str = Field(description="its test predictions, see pack_labels")
    radii: str | None = Field(default=None, description="radius + 1 per test row, see pack_labels; clean twin only")
    bounds: list[CertifiedAccuracy] = Field(
        description="of the head on the clean rows: by share for the clean twin, at the attack's changes for a trial"
    )


class Steered(Part):
    """What one probe makes of the chosen image, without the attack and with it."""

    clean_prediction: int
    poisoned_prediction: int
    eligible: bool = Field(description="the clean pipeline gets the image right, and the target class is another one")
    success: bool = Field(description="the poisoned pipeline gives the image the target class")
    clean_success: bool = Field(description="the clean pipeline already did (base rate)")
    collateral: Estimate = Field(description="share of the other test predictions that changed")
    neighbours: Estimate | None = Field(
        default=None,
        description="of the test rows nearest to the image in clean features, those changed to the target class",
    )
    augmented: Estimate | None = Field(
        default=None, description="share of crops, flips and noisy copies of the image that get the target class"
    )
    clean_augmented: Estimate | None = Field(
        default=None, description="the same copies in the clean pipeline (base rate)"
    )
    triggered: Estimate | None = Field(
        default=None,
        description="share of the test rows of other classes that get the target class with the attack's trigger on "
        "them; None without a trigger",
    )
    clean_triggered: Estimate | None = Field(
        default=None, description="the same rows with the trigger in the clean pipeline (base rate)"
    )


class TargetScores(Steered):
    """What happened to the one chosen image, by the headline probe (threats `weights`, `targeted`, `pretraining`)."""

    index: int = Field(description="row of the test split")
    true_class: int
    target_class: int
    together: int = Field(default=1, description="pairs of an image and a class that share the attack's run with this")
    probes: dict[str, Steered] = Field(default={}, description="by score key, the headline's too")


class RepairedProbe(Part):
    """One probe, fitted anew behind an encoder after a repair."""

    accuracy: Estimate = Field(description="on the test rows")
    change: Estimate = Field(
        description="accuracy after minus before the repair of the same encoder, paired over the test rows"
    )
    prediction: int | None = Field(default=None, description="for the chosen image; None in the clean twin")
    success: bool | None = Field(default=None, description="it is the target class")
    clean_success: bool | None = Field(
        default=None, description="it already is behind the clean encoder after the same repair (base rate)"
    )
    predictions: str = Field(description="test predictions, see pack_labels")


class Repaired(Part):
    """One repair of the defender's on the encoder of a trial; in the clean twin on the clean one: what it costs."""

    repair: dict[str, JsonValue] = Field(description="its name and every field")
    clean_images: int = Field(description="images of the defender's own that it was given")
    probes: dict[str, RepairedProbe] = Field(default={}, description="by probe, the headline first")
    error: str = Field(default="", description="why there is no repaired encoder")


class InputAlarm(Part):
    """A guard at one false-alarm rate."""

    rate: float = Field(description="share of clean images that the threshold is set to flag, at most")
    threshold: float = Field(description="inputs that score above it are flagged, in the guard's own units")
    flagged: bool | None = Field(default=None, description="the chosen image is; None in the clean twin")
    false_alarms: Estimate = Field(description="flagged share of the test images that the attack was not after")


class Guarded(Part):
    """One guard of the defender's in front of the encoder of a trial."""

    guard: dict[str, JsonValue] = Field(description="its name and every field")
    clean_images: int = Field(description="images of the defender's own that it learnt from")
    calibration_images: int = Field(description="further ones, whose scores set the thresholds")
    score: float | None = Field(default=None, description="of the chosen image, higher is more suspicious")
    share: float | None = Field(
        default=None,
        description="of the test images that the attack was not after, those that score below the chosen one, ties "
        "for half: its part in the AUROC",
    )
    clean_share: float | None = Field(default=None, description="the same in front of the clean encoder (base rate)")
    alarms: list[InputAlarm] = Field(default=[], description="by false-alarm rate, ascending")
    error: str = Field(default="", description="why there is no score")


class Scanned(Part):
    """One scan of the encoder of a trial, by a defender who holds the chosen image among clean ones."""

    scan: dict[str, JsonValue] = Field(description="its name and every field")
    images: int = Field(description="images that the defender held, the chosen ones among them")
    score: float | None = Field(default=None, description="of the trial's encoder, higher is more suspicious")
    clean_score: float | None = Field(default=None, description="of the clean encoder, on the same images")
    null_scores: list[float] = Field(default=[], description="of the clean encoders of the null, on the same images")
    false_alarm_rate: float | None = Field(
        default=None,
        description="(1 + clean encoders of the null that score at least as high) / (encoders of the null + 1); None "
        "without a null",
    )
    rank: int | None = Field(
        default=None,
        description="place of the chosen image among itself and the clean images, 1 is the most suspicious; with ties "
        "the last of them; None where the scan scores no images",
    )
    inputs: int | None = Field(default=None, description="images that the rank is among")
    towards: int | None = Field(default=None, description="class that the scan says the chosen image went to")
    towards_target: bool | None = Field(default=None, description="it is the target class")
    evidence: dict[str, JsonValue] = Field(
        default={}, description="what the scan saw; rows are the clean images and then the chosen ones"
    )
    error: str = Field(default="", description="why there is no score")
