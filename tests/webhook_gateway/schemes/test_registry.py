from __future__ import annotations

import subprocess
import sys

import pytest

from churnguard_pipelines.errors import InvalidConfiguration
from webhook_gateway.schemes import providers, scheme, schemes


def test_finds_the_modules_by_itself() -> None:
    assert providers() == ("custom", "github", "hubspot", "mailchimp", "mandrill", "salesforce", "sendgrid", "stripe")


def test_every_scheme_is_called_as_its_module() -> None:
    assert {provider: found.provider for provider, found in schemes().items()} == {name: name for name in providers()}
    assert all(found.title for found in schemes().values())


@pytest.mark.parametrize("name", ["", "sdk", "bodies", "paypal", "../stripe", "stripe.x", "\ud800"])
def test_an_unknown_provider_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(InvalidConfiguration, match="stripe"):
        scheme(name)


def test_a_module_is_imported_when_its_provider_is_asked_for() -> None:
    code = """if True:
        import sys
        from webhook_gateway.schemes import scheme
        assert "webhook_gateway.schemes.stripe" not in sys.modules
        scheme("stripe")
        assert "webhook_gateway.schemes.sendgrid" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_secrets_made_by_the_receiver_pass_through_a_url_and_through_base64() -> None:
    """One way of making them does for every scheme: hexadecimal digits after the prefix."""
    for found in schemes().values():
        prefix = found.generated_secret_prefix
        assert prefix is None or prefix.replace("_", "").isalnum()
