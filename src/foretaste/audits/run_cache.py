"""Runs that several trials share: what one gave, or how it failed, is kept for the next of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class RunCache(Generic[Result]):
    """Results by key, the latest `most` of them.

    A run that failed is not tried again by the next trial that needs it: its error is that trial's too. What ends the
    process (KeyboardInterrupt) is not kept.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: dict[Hashable, Result | Exception] = {}

    def get(self, key: Hashable, make: Callable[[], Result]) -> Result:
        """The result of that key, made now if it is not there.

        Raises:
            Exception: whatever `make` raised, now or when it was called for this key.
        """
        if key not in self._kept:
            found: Result | Exception
            try:
                found = make()
            except Exception as error:
                found = error
            self._kept[key] = found
            while len(self._kept) > self.most:
                del self._kept[next(iter(self._kept))]
        kept = self._kept[key]
        if isinstance(kept, Exception):
            raise kept
        return kept

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
