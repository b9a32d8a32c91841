"""Webhooks in (public), dashboard and API (internal): the ASGI processes of ChurnGuard Pipelines."""
