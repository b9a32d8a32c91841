"""What a webhook scheme is: how one provider signs its deliveries, and which single events a body holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

MOST_EVENTS = 10_000
"""Of one body. SendGrid, whose batches are the largest, sends at most 768 kB, some three thousand."""


class TooManyEvents(Exception):
    """The body holds more than ``MOST_EVENTS``."""


class MalformedBody(Exception):
    """The body is not what the provider sends; the message says why, without quoting it."""


@dataclass(slots=True)  # not frozen: that costs more than all else that is done with it
class Delivery:
    """One HTTP request. ``url``: the public one, as the provider called it, with its query; ``headers``: names in lower
    case; ``received_at``: epoch seconds of our clock."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    received_at: float


@dataclass(frozen=True, slots=True)
class Trust:
    """What an endpoint's deliveries are held against. ``secrets``: all that are active, in no order (several while one
    replaces another); ``keys``: their bytes, without empty ones, since anybody can sign with these; ``options``: what
    else the scheme needs to know of the sender, e.g. its account's id."""

    secrets: Sequence[str]
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    keys: Sequence[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        made = tuple(secret.encode("utf-8", "surrogatepass") for secret in self.secrets if secret.strip())
        object.__setattr__(self, "keys", made)


class Event(NamedTuple):
    """``id``: unique at the provider and the same in every attempt; ``entity``: what it tells of, events of one entity
    stay in order; ``payload``: JSON text, as it is stored."""

    id: str
    type: str
    entity: str
    payload: str


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes


ACCEPTED = Answer(200, "application/json", b'{"status":"accepted"}')


class Scheme(ABC):
    """One provider's way. Stateless; both methods run on every delivery, so they cost microseconds."""

    provider: ClassVar[str]
    title: ClassVar[str]
    content_types: ClassVar[tuple[str, ...]] = ("application/json",)
    generated_secret_prefix: ClassVar[str | None] = None
    """Where the receiver chooses the secret, ours begin so; None where the provider makes it."""
    probes: ClassVar[tuple[str, ...]] = ()
    """HTTP methods with which the provider tries the URL when it is set up, unsigned: answered 200, nothing stored."""

    @abstractmethod
    def verify(self, delivery: Delivery, trust: Trust) -> bool:
        """Whether one of the secrets signed this delivery, and lately. Takes the same time for every wrong one."""

    @abstractmethod
    def events(self, delivery: Delivery) -> list[Event]:
        """The single events of a verified delivery. Raises ``MalformedBody``, ``TooManyEvents``."""

    def accepted(self, delivery: Delivery) -> Answer:
        """What the provider takes for "stored"."""
        return ACCEPTED
