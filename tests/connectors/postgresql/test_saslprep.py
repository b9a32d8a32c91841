"""A password is prepared as PostgreSQL's own client prepares it, whatever is in it."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import pq

from churnguard_pipelines.connectors.postgresql.saslprep import prepared

AS_IT_IS = {
    "ascii": "canary password",
    "control character": "a\u0080b",
    "private use": "a\ue000b",
    "unassigned when the standard was made": "\U0001f130b",  # normalized it is an A, which was assigned
    "nothing but a soft hyphen": "\u00ad",
    "from right to left at one end": "\u05d0x",
    "from right to left and back": "\u05d0x\u05d0",
}
CHANGED = {
    "composed": ("pa\u0308ss", "p\u00e4ss"),
    "soft hyphen": ("a\u00adb", "ab"),
    "wide space": ("a\u3000b", "a b"),
    "space without width": ("a\u200bb", "a b"),  # both a space and nothing: a space
    "roman number": ("\u2168", "IX"),
    "from right to left": ("\u05d0\ufb20\u05d0", "\u05d0\u05e2\u05d0"),
}
# Where something happens: what normalizing changes, spaces, what is mapped to nothing or prohibited, other directions.
interesting = st.sampled_from(
    "aZ1 \u00a0\u00ad\u00aa\u00e4\u0308\u0340\u034f\u0378\u05d0\u0627\u0661\u06dd\u180e\u200b\u200e\u202e\u2028\u2168"
    "\u2126\u3000\ufb20\ufdfa\ufeff\ufffc\ufffd\ue000\U0001d173\U0001f130\U0001f600\U000e0001\U0002f868\U0010fffd"
)
passwords = st.text(interesting | st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)


def libpq_digests(password: str) -> tuple[bytes, int, str]:
    """Salt, iterations and the server's key."""
    connection = pq.PGconn.connect(b"host=/nonexistent")
    _, digested, keys = connection.encrypt_password(password.encode(), b"user", b"scram-sha-256").decode().split("$")
    iterations, salt = digested.split(":")
    return base64.b64decode(salt), int(iterations), keys.partition(":")[2]


@settings(max_examples=300, deadline=None)
@given(password=passwords)
def test_libpq_digests_the_same(password: str) -> None:
    salt, iterations, key = libpq_digests(password)
    digested = hashlib.pbkdf2_hmac("sha256", prepared(password), salt, iterations)
    assert base64.b64encode(hmac.digest(digested, b"Server Key", "sha256")).decode() == key


@pytest.mark.parametrize("password", AS_IT_IS.values(), ids=AS_IT_IS)
def test_what_is_refused_is_taken_as_it_is(password: str) -> None:
    assert prepared(password) == password.encode()


@pytest.mark.parametrize(("password", "expected"), CHANGED.values(), ids=CHANGED)
def test_what_is_written_differently_is_one_password(password: str, expected: str) -> None:
    assert prepared(password) == expected.encode()
