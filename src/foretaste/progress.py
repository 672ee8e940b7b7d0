"""Progress of long commands: bars with the time that remains on a terminal, one line per finished trial elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from foretaste.record import TrialRecord


def shown(console: Console) -> bool:
    """Whether bars are drawn: in a terminal and in a notebook."""
    return console.is_terminal or console.is_jupyter


def make_progress(console: Console) -> Progress:
    """A bar with counts, elapsed and remaining time; nothing where there is neither a terminal nor a notebook."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        transient=True,
        disable=not shown(console),
    )


def duration(seconds: float) -> str:
    """A time as people say it: 12 s, 3 min, 1.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Bars:
    """Bars that are drawn while the block runs."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = make_progress(console)

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()


class Following(_Bars):
    """One bar for one long piece of work; without a terminal a line now and then, so that a log shows life."""

    EVERY = 30.0  # seconds between lines

    def __init__(self, console: Console, label: str) -> None:
        super().__init__(console)
        self.label = label
        self.bar = self.bars.add_task(label, total=None)
        self.begun = self.said = time.monotonic()

    def step(self, done: int, total: int, note: str = "") -> None:
        """So much is done; `note` says how it goes."""
        text = f"{self.label}, {note}" if note else self.label
        self.bars.update(self.bar, description=text, completed=done, total=total)
        now = time.monotonic()
        if not shown(self.console) and now - self.said >= self.EVERY:
            self.said = now
            say(self.console, f"{text}: {done} of {total} ({duration(now - self.begun)})")


def say(console: Console, line: str) -> None:
    """A line as it is: no markup, colours or breaks."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


class AuditProgress(_Bars):
    """Two bars: the audit and its current trial; without a terminal, lines that a log can keep."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.whole = self.bars.add_task("clean pipeline", total=None)
        self.part = self.bars.add_task("", total=None, visible=False)
        self.done = self.total = 0
        self.stages: list[str] = []
        self.label = ""
        self.begun = time.monotonic()

    def stage(self, name: str, done: int, total: int) -> None:
        """The clean pipeline is being made."""
        self.bars.update(self.part, description=f"  {name}", completed=done, total=total, visible=True)
        if name not in self.stages:
            self.stages.append(name)
            self._log(f"clean pipeline: {name}")

    def planned(self, total: int, done: int) -> None:
        """So many trials there are, so many of them are done."""
        self.done, self.total = done, total
        self.begun = time.monotonic()
        self.bars.update(self.whole, description="trials", completed=done, total=total)
        self.bars.update(self.part, visible=False)
        if done:
            say(self.console, f"{done} of {total} trials are in the record already")

    def started(self, label: str) -> None:
        """A trial begins."""
        self.label = label
        self.bars.remove_task(self.part)  # a task that is reset keeps its total
        self.part = self.bars.add_task(f"  {label}", total=None)

    def step(self, done: int, total: int) -> None:
        """The trial's attack is so far."""
        self.bars.update(self.part, completed=done, total=total)

    def finished(self, record: TrialRecord) -> None:
        """The trial is in the record."""
        self.done += 1
        self.bars.update(self.whole, completed=self.done)
        if record.error is not None:
            say(self.console, f"failed: {self.label}: {record.error.message}")
        self._log(f"[{self.done}/{self.total}] {self.label}: {result(record)}{self._remaining()}")

    def _remaining(self) -> str:
        left = self.total - self.done
        elapsed = time.monotonic() - self.begun
        return f" ({duration(elapsed)}; {left} to go)" if left else f" ({duration(elapsed)})"

    def _log(self, line: str) -> None:
        if not shown(self.console):
            say(self.console, line)


def result(record: TrialRecord) -> str:
    """What came of a trial, in a few words."""
    if record.status == "failed" or not record.scores:
        return record.status
    scores = next(iter(record.scores.values()))
    if scores.poisoned is None:
        return f"accuracy {scores.clean.value:.1%}"
    moved = f"accuracy {scores.clean.value:.1%} to {scores.poisoned.value:.1%}"
    if record.target is None:
        return moved
    return f"{'steered' if record.target.success else 'not steered'}, {moved}"
