"""A simulated Stripe: what its API shows of a business, and the webhooks that it sends."""
