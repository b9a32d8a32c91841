"""What attackers try, as they would; the dashboard they try it on is that of its own tests."""

from tests.webhook_gateway.dashboard.conftest import browser, context, make_key, url
from tests.webhook_gateway.dashboard.test_oidc import browser as browser_with_provider
from tests.webhook_gateway.dashboard.test_oidc import provider

__all__ = ["browser", "browser_with_provider", "context", "make_key", "provider", "url"]
