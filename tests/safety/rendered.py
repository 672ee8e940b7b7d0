"""What the committed records look like today: the report of each folder, and the pages of the studies."""

from __future__ import annotations

import base64
import hashlib
import shutil
from importlib import resources
from pathlib import Path

from tests.safety import doors

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "records"
REFERENCE = Path(__file__).with_name("rendered.json")


def audits() -> list[str]:
    """Folders of audits, relative to `records`."""
    return sorted(str(path.parent.relative_to(RECORDS)) for path in RECORDS.rglob("record.jsonl"))


def studies() -> list[str]:
    """Folders of studies, relative to `records`."""
    return sorted(str(path.parent.relative_to(RECORDS)) for path in RECORDS.rglob("study.yaml"))


def audit(name: str) -> tuple[dict[str, str], bytes]:
    """Digests of a folder's report, and the bytes of its Markdown."""
    report = doors.render(doors.read(RECORDS / name))
    markdown = report.markdown.encode()
    return {"markdown": digest(markdown), "html": digest(without_plotly(report.html).encode())}, markdown


def study(name: str, scratch: Path) -> tuple[dict[str, str], bytes, bytes]:
    """Digests of a study's page and values, made in a copy that links to the records; and their bytes."""
    folder = scratch / name
    folder.mkdir(parents=True)
    for source in (RECORDS / name).iterdir():
        if source.is_dir():
            (folder / source.name).symlink_to(source)
        elif source.name not in ("study.md", "study.json"):
            shutil.copy(source, folder)
    page, data = doors.study(folder)
    return {"page": digest(page), "data": digest(data)}, page, data


def digest(content: bytes) -> str:
    """sha256."""
    return hashlib.sha256(content).hexdigest()


def without_plotly(html: str) -> str:
    """The page without plotly's script and the policy's hash of it: a new plotly is no change of ours."""
    script = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert html.count(script) == 1 and html.count(allowed) == 1
    return html.replace(script, "PLOTLY").replace(allowed, "PLOTLY")
