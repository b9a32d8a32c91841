"""librdkafka's errors in words for a person, and what it tells of its connections meanwhile."""

from __future__ import annotations

import logging
import time

from confluent_kafka import KafkaError

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.server_messages import repeated
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    PermissionMissing,
    ProviderUnavailable,
)

_REFUSED = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
}
_FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "may not read the topic",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "may not ask about the cluster",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "may not use the consumer group",
}
_NOT_TRUSTED = ("certificate verify failed", "wrong version number", "unknown ca", "bad certificate", "no certificate")
"""What OpenSSL says of a handshake that will fail the next time, too; other failures of it pass."""

_log = logging.getLogger(__name__)


def explained(guard: AddressGuard, error: KafkaError, what: str) -> ChurnGuardError:
    """``what`` failed, e.g. ``its brokers``."""
    stream_id, code = guard.integration_id, error.code()
    words = repeated(stream_id, error.str(), shown=not guard.restricted)
    if code in _REFUSED:
        return AuthenticationFailed(
            f"{what} refused the credentials{words}.",
            integration_id=stream_id,
            remedy="Correct sasl.mechanism, user and password in connection_config.",
        )
    if code in _FORBIDDEN:
        return PermissionMissing(
            f"its user {_FORBIDDEN[code]}{words}.",
            integration_id=stream_id,
            remedy="Allow READ on its topics, and READ on its consumer group, in Kafka's ACLs.",
        )
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
        return InvalidConfiguration(
            f"{what} have no such topic{words}.", integration_id=stream_id, remedy="Correct `topics`, or create it."
        )
    if _is_too_large(error):
        return InvalidConfiguration(
            f"{what} sent more at once than is taken{words}.",
            integration_id=stream_id,
            remedy="Raise largest_message, or read on behind that message: `churnguard streams seek`.",
        )
    if _is_not_trusted(error):
        return InvalidConfiguration(
            f"no TLS connection to {what} can be made{words}.",
            integration_id=stream_id,
            remedy="Correct security.protocol, or give the authority's certificate as connection_config.ssl_ca_pem.",
        )
    return ProviderUnavailable(
        f"{what} do not answer{words}.",
        integration_id=stream_id,
        remedy="It is tried again; if it lasts, correct bootstrap_servers or security.protocol, or look after them.",
    )


def _is_final(error: KafkaError) -> bool:
    """Whether another attempt would end in the same way."""
    return error.code() in _REFUSED or _is_not_trusted(error) or _is_too_large(error)


def _is_not_trusted(error: KafkaError) -> bool:
    return error.code() == KafkaError._SSL and any(sign in error.str().lower() for sign in _NOT_TRUSTED)


def _is_too_large(error: KafkaError) -> bool:
    return error.code() == KafkaError._BAD_MSG and "response size" in error.str()


class Heard:
    """An ``error_cb``: what a client tells of its connections, which it takes up again by itself. ``refused``: what no
    new attempt will mend; ``down``: since when no broker was there; ``last``: what was told last."""

    def __init__(self) -> None:
        self.refused: KafkaError | None = None
        self.last: KafkaError | None = None
        self.down: float | None = None

    def __call__(self, error: KafkaError) -> None:
        if _is_final(error):
            self.refused = error
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.down = self.down or time.monotonic()
        else:
            self.last = error


class Journal:
    """What librdkafka writes, which is a lot while a broker restarts, into our log for those who look for it. ``news``:
    it has heard something of brokers and topics since that was last set to False; with ``debug`` set to ``metadata``.
    It says so before it reads on, and that is all one hears of a topic that was deleted and made anew: it reads on
    there, from the old one's offset."""

    def __init__(self) -> None:
        self.news = False

    def log(self, level: int, message: str, *values: object) -> None:
        if values and values[0] == "METADATA":
            self.news = True
        _log.debug(message, *values)
