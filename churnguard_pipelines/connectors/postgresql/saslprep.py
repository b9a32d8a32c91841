"""SASLprep of a password as PostgreSQL and libpq do it, https://www.rfc-editor.org/rfc/rfc4013.

They differ from the standard, and from those who keep it, in that they look for what is prohibited before they
normalize, not afterwards; and they take what is refused as it is (``pg_saslprep`` in ``src/common/saslprep.c``).
"""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (
    stringprep.in_table_a1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def prepared(password: str) -> bytes:
    """What is digested of it."""
    if password.isascii():
        return password.encode()
    spaced = [" " if stringprep.in_table_c12(each) else each for each in password]
    mapped = [each for each in spaced if not stringprep.in_table_b1(each)]
    if _refused(mapped):
        return password.encode()
    return unicodedata.normalize("NFKC", "".join(mapped)).encode()


def _refused(mapped: list[str]) -> bool:
    if not mapped or any(prohibits(each) for each in mapped for prohibits in _PROHIBITED):
        return True
    if not any(map(stringprep.in_table_d1, mapped)):
        return False
    # Written from right to left: all of it, at both ends.
    both_ends = stringprep.in_table_d1(mapped[0]) and stringprep.in_table_d1(mapped[-1])
    return not both_ends or any(map(stringprep.in_table_d2, mapped))
