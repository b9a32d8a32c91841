"""How an alert leaves: e-mail, Slack, Teams, PagerDuty or a webhook, by Apprise's URLs of these five and no other.

What such a URL could have Apprise read from this machine (templates, keys, attachments) is refused. Sending ends within
:data:`SECONDS`, whatever the other side does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import InvalidConfiguration, ProviderUnavailable
from churnguard_pipelines.monitoring.health import Severity

if TYPE_CHECKING:
    from apprise import NotifyBase

SECONDS = 20.0
LONGEST_URL = 2_000
MOST_CHARACTERS = 3_000
"""Of a message: all of the five take it in one piece."""
SCHEMES: Mapping[str, tuple[str, str]] = {
    "mailto": ("apprise.plugins.email.base", "NotifyEmail"),
    "mailtos": ("apprise.plugins.email.base", "NotifyEmail"),
    "slack": ("apprise.plugins.slack", "NotifySlack"),
    "workflows": ("apprise.plugins.workflows", "NotifyWorkflows"),
    "pagerduty": ("apprise.plugins.pagerduty", "NotifyPagerDuty"),
    "json": ("apprise.plugins.custom_json", "NotifyJSON"),
    "jsons": ("apprise.plugins.custom_json", "NotifyJSON"),
}
"""Each with the module and the class that sends it; ``workflows`` is Teams, ``json`` and ``jsons`` are webhooks."""
_NATIVE = ("slack", "workflows")
"""Whose own https:// address of a webhook is taken, too."""
_READS_FILES = ("template", "pgp", "smime", "wkd", "attach", "cert")
EXAMPLES = (
    "mailtos://user:password@smtp.example.com?to=oncall@example.com, https://hooks.slack.com/services/…, Teams' "
    "https://….logic.azure.com/…, pagerduty://INTEGRATION_KEY@API_KEY, jsons://host/path"
)
_lock = threading.Lock()
"""Apprise keeps what it loads in the process."""


def check(url: str) -> str:
    """What may be shown of it: the scheme and the host. Raises ``InvalidConfiguration`` for what is none of the five,
    is incomplete, or would read a file."""
    _opened(url)
    scheme = urlsplit(url).scheme.lower()
    host = urlsplit(url).hostname or ""
    return f"{scheme}://{host}" if scheme in ("mailto", "mailtos", "json", "jsons", "https") else f"{scheme}://…"


def has_incidents(url: str) -> bool:
    """Whether a message there opens an incident, which stays open until one of the same name is over."""
    return urlsplit(url).scheme.lower() == "pagerduty"


def send(url: str, title: str, body: str, severity: Severity | None, incident: str | None = None) -> None:
    """``severity``: None for what is over; ``incident``: its name where it has one of its own. Raises
    ``InvalidConfiguration`` and ``ProviderUnavailable``."""
    import apprise

    kind = {Severity.CRITICAL: apprise.NotifyType.FAILURE, Severity.WARNING: apprise.NotifyType.WARNING}
    channel = _opened(url, incident)
    sender = apprise.Apprise(asset=channel.asset)
    sender.add(channel)
    notify = partial(
        sender.notify, body=body[:MOST_CHARACTERS], title=title[:200], body_format=apprise.NotifyFormat.TEXT,
        notify_type=kind[severity] if severity else apprise.NotifyType.SUCCESS, interpret_escapes=False,
    )  # fmt: skip
    try:  # in no pool's thread, of which Apprise has a few for all: one that hangs would keep the others from theirs
        sent = bool(in_thread("alert", notify).result(SECONDS))
    except TimeoutError:
        sent = False
    if not sent:
        raise ProviderUnavailable(
            f"{check(url)} did not take the message.", remedy="Check its URL with `churnguard alerts test DESTINATION`."
        )


def send_test(url: str) -> None:
    """Raises what :func:`send` does."""
    send(url, "Test", "ChurnGuard Pipelines sends its alerts here.", None)


def _opened(url: str, incident: str | None = None) -> NotifyBase:
    refused = InvalidConfiguration("this is no destination for alerts.", remedy=f"They look like: {EXAMPLES}.")
    if len(url) > LONGEST_URL or not url.isprintable():
        raise refused
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, max_num_fields=50)
    except ValueError:
        raise refused from None
    if reading := next((name for name, _ in query if name.lower().startswith(_READS_FILES)), None):
        raise InvalidConfiguration(f"a destination may not read files by {reading!r}.", remedy="Leave it out.")
    with _lock:
        from apprise import AppriseAsset

        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it logs what it is given
        scheme = parts.scheme.lower()
        given: dict[str, Any] | None = None
        if scheme in SCHEMES:
            given = _plugin(scheme).parse_url(url)
        elif scheme == "https":
            found = ((name, _plugin(name).parse_native_url(url)) for name in _NATIVE)
            scheme, given = next(((name, known) for name, known in found if known), (scheme, None))
        if not given:
            raise refused
        if incident is not None and has_incidents(url):
            given = {"action": "map", "dedup": incident} | given  # triggers it, or resolves it once it is over
        asset = AppriseAsset(allow_templates=False, storage_mode="memory", service_timeout=0)
        try:
            made: NotifyBase = _plugin(scheme)(**given | {"asset": asset})
        except TypeError:  # Apprise's word for what is missing, which may hold what was given
            raise refused from None
    return made


def _plugin(scheme: str) -> Any:
    module, name = SCHEMES[scheme]
    return getattr(import_module(module), name)
