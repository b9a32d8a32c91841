"""The REST API under /api: what the command line does, for programs. Whoever asks is known already."""
