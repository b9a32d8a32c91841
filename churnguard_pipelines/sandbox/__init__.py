"""Simulated providers and a simulated SaaS business: for the demo and for tests.

Imports nothing of the rest of the product, so that it can disagree with it. `business.py` is the business, `books.py`
what it says about itself, `stripe_api.py` the API in front of it, `serve.py` the fixture that runs it.
"""
