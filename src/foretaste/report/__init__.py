"""The report of an audit, made from its records alone: no torch, no network, the same bytes for the same records.

`render` turns trials into a `Report` (HTML, Markdown, verdict); `write` does so for the folder of an audit.
"""

from foretaste.report.render import Report, render, write

__all__ = ["Report", "render", "write"]
