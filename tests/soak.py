"""The long forms of crash tests and of fuzzing: `make soak` runs them all, CHURNGUARD_SOAK=1 whichever is named."""

from __future__ import annotations

import os

SOAK = os.environ.get("CHURNGUARD_SOAK") == "1"
SECONDS = 5400
"""What a long form may take."""
