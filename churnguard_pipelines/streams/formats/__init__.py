"""Makes documents of messages, by the format that a stream is configured with."""
