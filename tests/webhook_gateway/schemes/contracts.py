"""What the providers publish: test vectors of their signatures, and samples of their messages."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.sandbox.stripe.contracts import CONTRACTS


def contract(name: str) -> bytes:
    path = CONTRACTS / name
    if not path.exists():
        message = f"{path} is missing; CHURNGUARD_CONTRACTS points at the folder of the providers' own descriptions"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path.read_bytes()


def vectors() -> dict[str, dict[str, Any]]:
    return {vector["name"].partition(" (")[0]: vector for vector in json.loads(contract("signatures/vectors.json"))}
