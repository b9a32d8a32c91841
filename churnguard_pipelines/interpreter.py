"""How Python's interpreter is to behave in a process that does much of one thing; as long as the process lives."""

from __future__ import annotations

import gc
import sys

SWITCH_SECONDS = 0.0005
GARBAGE = 20_000


def suit_records() -> None:
    """Many records pass through. They leave no garbage, and looking for it at every 700th new object, as by default,
    goes through those that are on their way: a quarter of a session's time."""
    gc.set_threshold(GARBAGE)


def suit_answers() -> None:
    """Many threads wait for answers that are short. By default one whose answer has come waits ten times as long for
    those that compute: a tenth of a provider's call. Those that compute lose some hundredths by it."""
    sys.setswitchinterval(SWITCH_SECONDS)
