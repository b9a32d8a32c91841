"""What a reader of a change log gathers until it hands it over: whole transactions, as long as there are any."""

from __future__ import annotations

from churnguard_pipelines.mirrors import Change


class Gathering:
    """``changes``: those not handed over yet; ``whole``: how many of them are of transactions that have ended."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.whole = 0

    def transaction_ended(self) -> None:
        self.whole = len(self.changes)

    def take(self) -> tuple[list[Change], bool]:
        """What is handed over now, and whether it ends where a transaction does.

        What has come of one that goes on waits for its rest, so that a source that never rests does not keep
        transactions open which have ended. Only where there is nothing else does it go in parts.
        """
        end = self.whole or len(self.changes)
        taken, whole = self.changes[:end], bool(self.whole)
        self.changes, self.whole = self.changes[end:], 0
        return taken, whole
