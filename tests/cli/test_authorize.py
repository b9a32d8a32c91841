"""`churnguard integrations authorize`: a new integration by signing in, at the simulated Salesforce and HubSpot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from churnguard_pipelines.ports import free_port
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from tests.cli.test_cli import PATIENCE_SECONDS, Shell
from tests.cli.test_cli import sandbox as sandbox
from tests.cli.test_cli import shell as shell
from tests.connectors.authorization import visit

FILE = """
organization_id: acme
integration_id: acme-crm
provider_name: {provider}
base_url: {url}
credentials:
  credential_type: oauth2
  custom_fields: {{client_id: {client_id}, client_secret: "${{APP_SECRET}}"}}
"""
APPS = {
    "salesforce": ("3MVGsandbox_acme", "secret_acme"),
    "hubspot": ("6c1b7e0e-5a3d-4c8f-9d55-0c0ffee00001", "0b5e55ed-1dea-4c0d-8bad-5ec2e7000001"),
}

pytestmark = pytest.mark.xdist_group("cli")


@pytest.mark.parametrize("provider", APPS)
def test_a_new_integration_is_made_by_signing_in(shell: Shell, sandbox: Sandbox, store: Store, provider: str) -> None:
    client_id, secret = APPS[provider]
    text = FILE.format(provider=provider, url=sandbox.url, client_id=client_id)
    shell.folder.joinpath("crm.yaml").write_text(text)
    command = ["integrations", "authorize", provider, "--file", "crm.yaml", "--port", str(free_port())]
    with subprocess.Popen(
        [str(Path(sys.executable).with_name("churnguard")), *command],
        env=shell.environment | {"APP_SECRET": secret}, cwd=shell.folder, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        printed = ""
        for line in running.stdout:
            printed += line
            if line.startswith(f"{sandbox.url}/"):
                assert "go back to the terminal" in visit(line.strip()).text
        assert running.wait(PATIENCE_SECONDS) == 0, printed
    assert "Connected to" in printed
    assert "acme-crm is signed in" in " ".join(printed.split())
    stored = get_integration(store, "acme-crm").credentials
    for token in (stored.access_token, stored.refresh_token):
        assert token is not None
        assert token.get_secret_value() not in printed
