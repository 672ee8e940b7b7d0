"""Take the pictures out of records that are to be committed: python -m scripts.slim FOLDER...

Poison images and projections are nine tenths of a record and in no figure; the trial's command makes them again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from foretaste.record import FILE_NAME, read


def slim(folder: Path) -> None:
    """Rewrite the folder's record without exhibits and projections."""
    records = [record.model_copy(update={"exhibits": [], "projection": None}) for record in read(folder)]
    path = folder / FILE_NAME
    whole = path.with_suffix(".tmp")
    whole.write_text("".join(record.model_dump_json() + "\n" for record in records), encoding="utf-8")
    whole.replace(path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        slim(Path(name))
