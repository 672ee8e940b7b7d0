"""One synthetic audit with planted figures for all tests of the report, summarised and rendered once."""

from __future__ import annotations

import pytest

from foretaste import report
from foretaste.record import TrialRecord
from foretaste.report.summary import Summary, summarise
from tests import records_fixture as planted


@pytest.fixture(scope="session")
def audit() -> list[TrialRecord]:
    return planted.audit()


@pytest.fixture(scope="session")
def summary(audit: list[TrialRecord]) -> Summary:
    return summarise(audit)


@pytest.fixture(scope="session")
def rendered(audit: list[TrialRecord]) -> report.Report:
    return report.render(audit)
