"""The errors a person meets. Each message says what happened, to which integration, and what to do.

ChurnGuardError
  InvalidConfiguration      a setting, a file or an argument is wrong; nothing was started
  DatabaseUnavailable       PostgreSQL cannot be used
    DatabaseUnreachable     nobody lets us in there; the same call may succeed later
    TableInUse              one table has to be changed, and somebody does not let go of it
  SecretsUnreadable         the encryption key does not open what is stored
  NotFound                  no such organization, integration, object or record
  LaneTakenOver             another run moved this lane's checkpoint; ours wrote nothing
  SourceChanged             the checkpoint belongs to another source (another account, another server)
  SchemaConflict            a source table has or became what its mirror cannot hold; the other tables go on
  Stopped                   the run was asked to stop; what was committed stays, the rest is read next time
  SyncFailed                some objects of a sync failed; the message lists each with its cause
  AlreadyRunning            the same is under way, in another way than it is wanted
  TooBusy                   not now: what was begun before holds all the places there are
  ProviderError             the provider's side
    AuthenticationFailed    the credentials are refused
    PermissionMissing       the credentials are good but may not read this
    RateLimited             the provider refused for its quota and the retries are used up
    ProviderUnavailable     no usable answer after all retries (time-outs, 5xx, HTML, cut JSON)
    ProviderMisbehaved      an answer that breaks the provider's own rules (paging that never ends, …)
    RequestRefused          any other 4xx: our request was wrong for this account
    CircuitOpen             skipped without a call: the integration failed too often, retry_at says until when
"""

from __future__ import annotations

from datetime import datetime


class ChurnGuardError(Exception):
    """Root of every error this product raises on purpose.

    ``message``: what happened; ``integration_id``: to which integration, if to one; ``remedy``: what to do now.
    """

    def __init__(self, message: str, *, integration_id: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.integration_id = integration_id
        self.remedy = remedy

    def __str__(self) -> str:
        where = f"{self.integration_id}: " if self.integration_id else ""
        return f"{where}{self.explanation}"

    @property
    def explanation(self) -> str:
        """What happened and what to do, where it is clear to which integration."""
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class InvalidConfiguration(ChurnGuardError):
    pass


class DatabaseUnavailable(ChurnGuardError):
    pass


class DatabaseUnreachable(DatabaseUnavailable):
    pass


class TableInUse(DatabaseUnavailable):
    pass


class SecretsUnreadable(ChurnGuardError):
    pass


class NotFound(ChurnGuardError):
    pass


class LaneTakenOver(ChurnGuardError):
    pass


class SourceChanged(ChurnGuardError):
    pass


class SchemaConflict(ChurnGuardError):
    pass


class Stopped(ChurnGuardError):
    pass


class SyncFailed(ChurnGuardError):
    pass


class AlreadyRunning(ChurnGuardError):
    pass


class TooBusy(ChurnGuardError):
    pass


class ProviderError(ChurnGuardError):
    """Something on the provider's side. ``status``: the HTTP status where there was one. ``server_message``: what the
    server said, which is not for everybody: whoever knows who asked adds it to the message."""

    def __init__(
        self,
        message: str,
        *,
        integration_id: str | None = None,
        remedy: str | None = None,
        status: int | None = None,
        server_message: str = "",
    ) -> None:
        super().__init__(message, integration_id=integration_id, remedy=remedy)
        self.status = status
        self.server_message = server_message


class AuthenticationFailed(ProviderError):
    pass


class PermissionMissing(ProviderError):
    pass


class RateLimited(ProviderError):
    pass


class ProviderUnavailable(ProviderError):
    pass


class ProviderMisbehaved(ProviderError):
    pass


class RequestRefused(ProviderError):
    pass


class CircuitOpen(ProviderError):
    """The call was skipped because the integration failed too often. ``retry_at``: when the next attempt is allowed;
    None = not before a person changes something."""

    def __init__(self, message: str, *, integration_id: str, retry_at: datetime | None, remedy: str) -> None:
        super().__init__(message, integration_id=integration_id, remedy=remedy)
        self.retry_at = retry_at
