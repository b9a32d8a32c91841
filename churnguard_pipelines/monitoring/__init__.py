"""How the installation is doing: vital signs from the ledger, judged into health scores and alerts."""
