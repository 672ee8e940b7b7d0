from __future__ import annotations

import json
import math
import os
import threading
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from pydantic import ValidationError

from foretaste import record
from foretaste.errors import RecordError
from foretaste.record import (
    FILE_NAME,
    Estimate,
    Ledger,
    TrialRecord,
    append,
    digest_of,
    json_schema,
    pack_labels,
    read,
    unpack_labels,
)
from tests.records_fixture import CLASSES, clean_twin, labelled

ROOT = Path(__file__).resolve().parents[1]


def filled(folder: Path, count: int = 3) -> list[TrialRecord]:
    trials = [clean_twin(), *labelled()][:count]
    for trial in trials:
        append(folder, trial)
    return trials


@pytest.mark.parametrize("labels", [[], [0], [0, 1, 2, 1], [65535, 0], list(range(1000))], ids=len)
def test_packed_labels_come_back(labels: list[int]) -> None:
    assert unpack_labels(pack_labels(labels)).tolist() == labels
    assert unpack_labels(pack_labels(np.array(labels, dtype=np.int64))).tolist() == labels


def test_packed_labels_are_small_and_the_same_every_time() -> None:
    labels = np.random.default_rng(0).integers(10, size=10_000)
    assert pack_labels(labels) == pack_labels(labels.copy())
    assert len(pack_labels(labels)) < 10_000


@pytest.mark.parametrize("labels", [[-1, 0], [65536]])
def test_labels_that_do_not_fit_are_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="65535"):
        pack_labels(labels)


@pytest.mark.parametrize("text", ["", "?", "aGVsbG8=", pack_labels([1, 2])[:-4]])
def test_damaged_labels_are_an_error(text: str) -> None:
    with pytest.raises(RecordError, match="packed labels"):
        unpack_labels(text)


def test_digest_depends_on_the_value_and_not_on_its_spelling() -> None:
    assert digest_of({"a": 1, "b": [1.5, None, "é"]}) == digest_of(json.loads('{"b": [1.50, null, "\\u00e9"], "a": 1}'))
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    assert digest_of([1, 2]) != digest_of([2, 1])
    assert digest_of({"a": None}) != digest_of({})
    with pytest.raises(ValueError, match="Out of range"):
        digest_of({"a": math.nan})


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    trials = filled(tmp_path, 5)
    assert read(tmp_path) == trials == read(tmp_path / FILE_NAME)


def test_the_later_line_of_a_trial_counts(tmp_path: Path) -> None:
    first, second = filled(tmp_path, 2)
    again = second.model_copy(update={"status": "failed", "seed": 77})
    append(tmp_path, again)
    assert read(tmp_path) == [first, again]


def test_unfinished_last_line_is_ignored_and_can_be_cut_off(tmp_path: Path) -> None:
    trials = filled(tmp_path)
    whole = (tmp_path / FILE_NAME).read_bytes()
    for cut in (1, 10, len(whole.splitlines()[-1])):
        (tmp_path / FILE_NAME).write_bytes(whole[:-cut])
        assert read(tmp_path) == trials[:-1]
        assert (tmp_path / FILE_NAME).read_bytes() == whole[:-cut]  # reading alone writes nothing
        assert read(tmp_path, repair=True) == trials[:-1]
        append(tmp_path, trials[-1])
        assert (tmp_path / FILE_NAME).read_bytes() == whole


@pytest.mark.parametrize("damage", [b"{}\n", b"\n", b"{not json\n", b"[]\n", b"\xff\xfe\n", b'"text"\n'])
def test_damaged_middle_line_is_an_error_that_names_it(tmp_path: Path, damage: bytes) -> None:
    filled(tmp_path)
    lines = (tmp_path / FILE_NAME).read_bytes().splitlines(keepends=True)
    broken = b"".join([lines[0], damage, lines[2]])
    (tmp_path / FILE_NAME).write_bytes(broken)
    with pytest.raises(RecordError, match="line 2"):
        read(tmp_path, repair=True)
    assert (tmp_path / FILE_NAME).read_bytes() == broken  # a repair never touches what it does not understand


def test_another_format_is_an_error(tmp_path: Path) -> None:
    line = clean_twin().model_dump_json().replace("foretaste.trial/1", "foretaste.trial/9")
    (tmp_path / FILE_NAME).write_text(line + "\n")
    with pytest.raises(RecordError, match=r"foretaste\.trial/1"):
        read(tmp_path)


def test_unknown_keys_and_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Ledger(changed=[], objective=[1.0, math.nan])
    with pytest.raises(ValidationError, match="finite"):
        Estimate(value=0.5, low=-math.inf, high=1, n=3, method="")
    line = json.loads(clean_twin().model_dump_json()) | {"surprise": 1}
    (tmp_path / FILE_NAME).write_text(json.dumps(line) + "\n")
    with pytest.raises(RecordError, match="surprise"):
        read(tmp_path)


def test_no_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nothing there"):
        read(tmp_path)
    with pytest.raises(RecordError, match="nothing there"):
        read(tmp_path / "missing")


def test_lines_of_writers_at_once_stay_whole(tmp_path: Path) -> None:
    trials = [clean_twin().model_copy(update={"trial": f"{index}", "seed": index}) for index in range(24)]
    writers = [threading.Thread(target=append, args=(tmp_path, trial)) for trial in trials]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(read(tmp_path), key=lambda trial: trial.seed) == trials


def test_half_a_line_on_a_full_disk_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    before = (tmp_path / FILE_NAME).read_bytes()
    write = os.write
    monkeypatch.setattr(record.os, "write", lambda descriptor, line: write(descriptor, line[: len(line) // 2]))
    with pytest.raises(RecordError, match="no space"):
        append(tmp_path, clean_twin())
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_an_unwritable_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(RecordError, match="can be written"):
        append(tmp_path, clean_twin())


def test_published_schema_is_the_one_of_the_code() -> None:
    published = (ROOT / "docs" / "record.schema.json").read_text(encoding="utf-8")
    assert published == json.dumps(json_schema(), indent=2) + "\n", "run `foretaste schema > docs/record.schema.json`"


def test_schema_accepts_records_and_refuses_others() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for trial in [clean_twin(), *labelled()[:3]]:
        validator.validate(json.loads(trial.model_dump_json()))
    line = json.loads(clean_twin().model_dump_json())
    for wrong in ({"surprise": 1}, {"status": "maybe"}, {"format": "foretaste.trial/9"}, {"seed": "x"}):
        assert list(validator.iter_errors(line | wrong)), wrong
    assert len(line["data"]["classes"]) == len(CLASSES)


def test_every_field_of_the_record_is_documented() -> None:
    text = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")
    missing = [name for name in TrialRecord.model_fields if f"`{name}`" not in text]
    assert not missing
