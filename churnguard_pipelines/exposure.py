"""Where this installation may listen: not where keys would cross a network in clear, nor where anybody's deliveries
would be taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.ports import refuse_unusable
from churnguard_pipelines.settings import LOOPBACK, Settings


def refuse_bad_addresses(settings: Settings) -> None:
    """Raises ``InvalidConfiguration`` where the dashboard or the gateway may not or could not listen; asked before
    anything is started."""
    transport_of(settings)
    refuse_unsigned(settings)
    if settings.dashboard_port == settings.webhook_port:
        raise InvalidConfiguration(
            f"DASHBOARD_PORT and WEBHOOK_SERVER_PORT are both {settings.webhook_port}.",
            remedy="Give the two different ports.",
        )
    refuse_unusable(settings.dashboard_host, settings.dashboard_port, "DASHBOARD")
    refuse_unusable(settings.webhook_host, settings.webhook_port, "WEBHOOK_SERVER")


@dataclass(frozen=True, slots=True)
class Transport:
    """How browsers reach us. Raises ``InvalidConfiguration`` where keys would cross a network in clear."""

    host: str
    cert: Path | None
    key: Path | None
    behind_proxy: bool
    published_on_loopback: bool = False

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InvalidConfiguration("TLS needs a certificate and its key.", remedy="Give --tls-cert and --tls-key.")
        for path in (self.cert, self.key):
            if path is not None and not path.is_file():
                raise InvalidConfiguration(f"{path} is no file.", remedy="Correct --tls-cert and --tls-key.")
        if self.host not in LOOPBACK and not self.secure and not self.published_on_loopback:
            raise InvalidConfiguration(
                f"DASHBOARD_HOST={self.host} would send keys over the network in clear.",
                remedy="Give --tls-cert and --tls-key (DASHBOARD_TLS_CERT, DASHBOARD_TLS_KEY), or --behind-proxy "
                "(DASHBOARD_BEHIND_PROXY=true) where a proxy speaks HTTPS; or bind to 127.0.0.1; or publish a "
                "container's port on its host's 127.0.0.1 only, and say so by DASHBOARD_PUBLISHED_ON_LOOPBACK=true.",
            )

    @property
    def secure(self) -> bool:
        return self.cert is not None or self.behind_proxy


def transport_of(
    settings: Settings, cert: Path | None = None, key: Path | None = None, *, behind_proxy: bool = False
) -> Transport:
    """What was given overrules the environment."""
    if cert is None and key is None:
        cert, key = settings.dashboard_tls_cert, settings.dashboard_tls_key
    proxied, published = behind_proxy or settings.dashboard_behind_proxy, settings.dashboard_published_on_loopback
    return Transport(settings.dashboard_host, cert, key, proxied, published)


def refuse_unsigned(settings: Settings) -> None:
    if not settings.webhook_signature_validation and settings.webhook_host not in LOOPBACK:
        raise InvalidConfiguration(
            f"WEBHOOK_SIGNATURE_VALIDATION=false would take deliveries of anybody who reaches {settings.webhook_host}.",
            remedy="Turn it on, or bind to 127.0.0.1 with WEBHOOK_SERVER_HOST.",
        )
