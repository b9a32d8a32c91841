"""Events of providers with an API: pushed to our webhooks, or read from a feed that a session follows."""
