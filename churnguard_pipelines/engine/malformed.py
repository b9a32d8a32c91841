"""The one error for foreign bytes that are not what they claim to be, whatever goes wrong in parsing them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_BROKEN = (struct.error, zlib.error, LookupError, ValueError, TypeError, ArithmeticError, RecursionError)


class Malformed(Exception):
    """Bytes are not what they claim to be. Says what is wrong, without quoting."""


def strictly(read: Callable[P, R]) -> Callable[P, R]:
    """A reader of foreign bytes that raises ``Malformed`` and nothing else. Not for what asks others."""

    @wraps(read)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return read(*args, **kwargs)
        except _BROKEN as error:
            raise Malformed(f"cut or damaged bytes ({type(error).__name__} in {read.__name__})") from error

    return guarded
