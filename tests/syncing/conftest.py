"""The simulated Stripe, and integrations that sync it, as the tests of its connector have them."""

from __future__ import annotations

from tests.connectors.conftest import register as register
from tests.connectors.conftest import sandbox as sandbox
from tests.connectors.conftest import world as world
