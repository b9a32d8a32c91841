"""How work is done, whoever the provider is: syncs, change logs, webhooks, comparisons."""
