"""Simulated providers and a simulated SaaS business: for the demo and for tests.

Imports nothing of the rest of the product, so that it can disagree with it. `business/` is the business: its billing
(`company.py`), its CRM (`crm.py`) and what its books say (`books.py`). `stripe/`, `salesforce/` and `hubspot/` are the
APIs in front of it, `provider.py` says how one more is mounted, and `serve.py` is the fixture that runs them.
"""
