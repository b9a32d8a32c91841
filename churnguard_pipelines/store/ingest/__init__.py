"""Schema ``ingest``: how far everything is, what waits, what was rejected, what a sync came to."""
