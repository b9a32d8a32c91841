"""How work is done, whoever the provider is."""
