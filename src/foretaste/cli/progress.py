"""Progress on the terminal, with the time that remains; nothing where there is no terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from foretaste.record import TrialRecord


def make_progress(console: Console) -> Progress:
    """A bar with counts, elapsed and remaining time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        transient=True,
    )


class AuditProgress:
    """Two bars: the audit and its current trial. A line per finished trial where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = make_progress(console)
        self.whole = self.bars.add_task("clean pipeline", total=None)
        self.part = self.bars.add_task("", total=None, visible=False)
        self.done = self.total = 0
        self.begun = time.monotonic()

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def stage(self, name: str, done: int, total: int) -> None:
        """The clean pipeline is being made."""
        self.bars.update(self.part, description=f"  {name}", completed=done, total=total, visible=True)

    def planned(self, total: int, done: int) -> None:
        """So many trials there are, so many of them are done."""
        self.done, self.total = done, total
        self.bars.update(self.whole, description="trials", completed=done, total=total)
        self.bars.update(self.part, visible=False)
        if done:
            self.console.print(f"{done} of {total} trials are in the record already")

    def started(self, label: str) -> None:
        """A trial begins."""
        self.bars.reset(self.part, description=f"  {label}", total=None, visible=True)

    def step(self, done: int, total: int) -> None:
        """The trial's attack is so far."""
        self.bars.update(self.part, completed=done, total=total)

    def finished(self, record: TrialRecord) -> None:
        """The trial is in the record."""
        self.done += 1
        self.bars.update(self.whole, completed=self.done)
        if record.error is not None:
            self.console.print(f"failed: {record.attack} ({record.trial}): {record.error.message}", markup=False)
        elif not self.console.is_terminal:
            seconds = time.monotonic() - self.begun
            self.console.print(
                f"[{self.done}/{self.total}] {seconds:.0f} s  {record.attack} {record.variant}", markup=False
            )
