"""Guards where a configuration may send us: an operator may choose any address, an organization only public ones.

A name is looked up once, every address it has is judged, and the caller connects to one of exactly those: a name that
answers differently the next time gains nothing. What the operator lists in ``CHURNGUARD_TENANT_ADDRESSES`` is open to
organizations, too. Whether a name inside exists is not told: it is refused in the words of one that does not.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from churnguard_pipelines.destinations import destinations
from churnguard_pipelines.errors import InvalidConfiguration, ProviderUnavailable
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.model import APIIngestionRule, IntegrationConfiguration, StreamConfiguration, revealed
from churnguard_pipelines.settings import AllowedAddress, load_settings

LOOK_UP_SECONDS = 5.0
"""A tenant's name server that never answers holds nobody longer."""

LookUp = Callable[[str, int], list[str]]
"""Host and port -> numeric addresses. Raises ``OSError`` or ``UnicodeError`` for what is no name."""

_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*):(?P<port>\d{1,6})")

_HOST = re.compile(r"[\w.:-]{1,255}")
"""No socket path, list, user, zone or control character, which some driver or other would understand."""

_ENCRYPTED = ("https", "wss", "rediss")
_PORTS = {"http": 80, "ws": 80, "redis": 6379, "rediss": 6379}
"""Of schemes whose port is not 443."""
_WEB = (80, 443)
"""Below 1024: what listens at others may take a request for its own protocol, as mail servers do."""

_IPV4_SPECIAL = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's metadata and agents, at an address that looks public
    )
)  # fmt: skip
"""IANA's special-purpose registry; ``is_global`` of Python's ``ipaddress`` calls some of these global."""

_IPV6_PUBLIC = ipaddress.IPv6Network("2000::/3")
_IPV6_SPECIAL = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo, ORCHID, benchmarks
        "2001:db8::/32", "3fff::/20",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3ffe::/16",
    )
)  # fmt: skip
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""How machines without IPv4 reach it; judged by the IPv4 address at its end."""


@dataclass(frozen=True)
class AddressGuard:
    """Decides whether an address may be connected to. ``restricted``: an organization decides where we go. ``allowed``:
    what is open to it besides public addresses."""

    integration_id: str
    restricted: bool
    allowed: tuple[AllowedAddress, ...] = ()
    look_up: LookUp = field(default=lambda host, port: look_up(host, port), repr=False, compare=False)

    def resolve(self, host: str, port: int) -> list[str]:
        """Numeric addresses that may be connected to, in the order to try them; a socket's path of an operator's as it
        is. Ends within :data:`LOOK_UP_SECONDS`.

        Raises ``InvalidConfiguration`` for what may not be reached or is no address, ``ProviderUnavailable`` where no
        name server answers.
        """
        self.check(host, port)
        if host.startswith("/"):
            return [host]
        try:
            found = _within(LOOK_UP_SECONDS, lambda: self.look_up(host, port))
        except (TimeoutError, socket.gaierror) as error:
            if isinstance(error, TimeoutError) or error.errno == socket.EAI_AGAIN:
                raise ProviderUnavailable(
                    f"no name server says where “{host}” is.",
                    integration_id=self.integration_id,
                    remedy="The next sync tries again; if it lasts, correct the host or its name server.",
                ) from None
            raise self._unreachable(host) from None
        except (OSError, UnicodeError, ValueError):
            raise self._unreachable(host) from None
        if not found or not self._may_reach(host, port, found):
            raise self._unreachable(host)
        return found

    def check(self, host: str, port: int | None) -> None:
        """What can be said without asking anybody: for the moment somebody configures it. ``port``: None if it is not
        known yet. Raises ``InvalidConfiguration``."""
        if port is not None and not 0 < port < 65536:
            raise InvalidConfiguration(
                f"{port} is no port.", integration_id=self.integration_id, remedy="A port is from 1 to 65535."
            )
        if not self.restricted:
            if not host or "\0" in host:
                raise self._unreachable(host)
            return
        if not _HOST.fullmatch(host):
            raise self._unreachable(host)
        literal = _numeric(host)
        if literal and not self._may_reach(host, port, literal):
            raise self._unreachable(host)

    def check_url(self, url: str) -> None:
        """Of HTTP or another protocol: the host, and that nobody on the way may read what is sent. Raises
        ``InvalidConfiguration``."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise self._unreachable(url) from None
        port = _PORTS.get(parts.scheme, 443) if port is None else port
        self.check(host, port)
        if (
            self.restricted
            and parts.scheme in ("http", "https", "ws", "wss")
            and port < 1024
            and port not in _WEB
            and not self._is_listed(host, port)
        ):
            raise InvalidConfiguration(
                f"port {port} is none of the web.",
                integration_id=self.integration_id,
                remedy="Use 443, or one from 1024 on.",
            )
        if self.restricted and parts.scheme not in _ENCRYPTED and not self._is_listed(host, port):
            raise InvalidConfiguration(
                f"“{on_one_line(host, 100)}” would be asked without encryption.",
                integration_id=self.integration_id,
                remedy=f"Its address must begin with {' or '.join(f'{scheme}://' for scheme in _ENCRYPTED)}.",
            )

    def _is_listed(self, host: str, port: int | None) -> bool:
        addresses = _numeric(host)
        return any(
            each.names(host, port) or (addresses and all(each.contains(address, port) for address in addresses))
            for each in self.allowed
        )

    def _may_reach(self, host: str, port: int | None, found: list[str]) -> bool:
        if not self.restricted or any(each.names(host, port) for each in self.allowed):
            return True
        return all(
            any(each.contains(address, port) for each in self.allowed) or (is_public(address) and not is_ours(address))
            for address in found
        )

    def _unreachable(self, host: str) -> InvalidConfiguration:
        if not self.restricted:
            return InvalidConfiguration(
                f"there is no host “{on_one_line(host, 100)}”.",
                integration_id=self.integration_id,
                remedy="Correct the host's name.",
            )
        return InvalidConfiguration(
            f"“{on_one_line(host, 100)}” is no host with a public address.",
            integration_id=self.integration_id,
            remedy="Name one that the internet reaches; one inside can only be opened by whoever operates this "
            "installation, in CHURNGUARD_TENANT_ADDRESSES.",
        )


def guard_of(configuration: IntegrationConfiguration | StreamConfiguration | APIIngestionRule) -> AddressGuard:
    """What the configuration may reach, by who configured it. The allow-list is the environment's."""
    restricted = configuration.configured_by != "operator"
    allowed = load_settings().tenant_addresses if restricted else ()
    return AddressGuard(_name(configuration), restricted, allowed)


def check_addresses(configuration: IntegrationConfiguration | StreamConfiguration | APIIngestionRule) -> None:
    """Refuse at once what an organization may not configure, as far as it can be told without asking anybody; the rest
    when it is connected to. Raises ``InvalidConfiguration``."""
    guard = guard_of(configuration)
    if not guard.restricted:
        return
    for kind, text in destinations(revealed(_parts(configuration))):
        if kind == "url":
            guard.check_url(text)
        elif kind == "host":
            for each in text.split(","):
                parts = _HOST_AND_PORT.fullmatch(each.strip(" "))
                host, port = (parts["host"].strip("[]"), int(parts["port"])) if parts else (each.strip(" "), None)
                guard.check(host, port)


def _parts(configuration: IntegrationConfiguration | StreamConfiguration | APIIngestionRule) -> object:
    """The parts of it that can name an address."""
    match configuration:
        case IntegrationConfiguration(base_url=base, webhook_url=webhook, credentials=own):
            return {"base_url": base, "webhook_url": webhook, "credentials": own.custom_fields}
        case StreamConfiguration(connection_config=connection):
            return connection
        case APIIngestionRule(endpoint_url=endpoint, authentication=own):
            return {"endpoint_url": endpoint, "authentication": own.custom_fields if own else None}


def is_public(address: str) -> bool:
    """Whether a numeric address is one of the public internet. False for whatever is not plainly that."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.scope_id is not None:
            return False
        if parsed in _NAT64:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
        else:
            return parsed in _IPV6_PUBLIC and not any(parsed in network for network in _IPV6_SPECIAL)
    return not any(parsed in network for network in _IPV4_SPECIAL)


def is_ours(address: str) -> bool:
    """Whether it is this machine's own: then it is also where we would call from. Sends nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return bool(ipaddress.ip_address(probe.getsockname()[0]) == ipaddress.ip_address(address))
    except OSError:  # no way there
        return False


def look_up(host: str, port: int) -> list[str]:
    """As every driver does: with the C library's idea of names and numbers."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(_address(each[4]) for each in found))


def _address(found: tuple[Any, ...]) -> str:
    """Of the C library's answer; an address of one link only keeps its zone."""
    zone = found[3] if len(found) == 4 else 0
    return f"{found[0]}%{zone}" if zone and "%" not in found[0] else str(found[0])


def _numeric(host: str) -> list[str]:
    """The addresses of one written as numbers, in any spelling that the C library knows; none for a name."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError, ValueError):
        return []
    return [_address(each[4]) for each in found]


def _within(seconds: float, ask: Callable[[], list[str]]) -> list[str]:
    """In a thread of its own: the C library takes no deadline. Raises ``TimeoutError``, or what ``ask`` raises."""
    answers: SimpleQueue[list[str] | Exception] = SimpleQueue()

    def work() -> None:
        try:
            answers.put(ask())
        except Exception as error:
            answers.put(error)

    Thread(target=work, name="look-up", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _name(configuration: IntegrationConfiguration | StreamConfiguration | APIIngestionRule) -> str:
    match configuration:
        case IntegrationConfiguration():
            return configuration.integration_id
        case StreamConfiguration():
            return configuration.stream_id
        case APIIngestionRule():
            return configuration.rule_id
