"""A connection to a Redis server, found by its address or by Sentinels: guarded, bounded in time and bytes, its errors
in our own words."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any

from redis import exceptions
from redis.connection import Connection

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.allowance import CONNECT_SECONDS, Exhausted, connected_socket
from churnguard_pipelines.engine.server_messages import repeated
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    PermissionMissing,
    ProviderUnavailable,
    Stopped,
)
from churnguard_pipelines.streams.redis.answers import ANSWER_SECONDS, KEPT_BYTES, Answers, closed
from churnguard_pipelines.streams.redis.options import Login, Target

Command = tuple[str | bytes | int, ...]

_NOT_TRUSTED = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER")
"""OpenSSL's reasons that the next attempt will have, too."""
_log = logging.getLogger(__name__)

_RULES = "+@stream +scan +dbsize +ping +multi +exec +role +select"


class Server:
    """Connects when it is first asked. For one thread at a time; ``close`` may come from another one."""

    def __init__(self, target: Target, guard: AddressGuard, cancelled: Event) -> None:
        self.target = target
        self.cancelled = cancelled
        self._guard = guard
        self._connection: _Connection | None = None

    def lend(self, guard: AddressGuard, cancelled: Event) -> None:
        """To another stream that may reach the same; what is told of errors from now on is told of that one."""
        self._guard, self.cancelled = guard, cancelled

    def ask(self, *command: str | bytes | int, kept: int = KEPT_BYTES) -> Any:
        """The answer; ``kept``: bytes that it may have."""
        return self._asked([command], kept)[0]

    def ask_all(self, commands: Sequence[Command], kept: int = KEPT_BYTES) -> list[Any]:
        """The answers, some of which may be errors of redis-py's."""
        return self._asked(commands, kept, all_raise=False)

    def ask_at_once(
        self, commands: Sequence[Command], *, before: Sequence[Command] = (), kept: int = KEPT_BYTES
    ) -> Any:
        """The same where nobody else's commands come between; ``before`` go ahead, whatever becomes of them."""
        answers = self._asked([*before, ("MULTI",), *commands, ("EXEC",)], kept, all_raise=False)[len(before) :]
        if isinstance(answers[-1], list):
            return answers[-1]
        with self.translated():
            raise next(each for each in answers if isinstance(each, exceptions.ResponseError))

    @property
    def received(self) -> int:
        """Bytes of the last answers."""
        return self._connection.answers.received if self._connection else 0

    @property
    def rests(self) -> bool:
        """Whether it is connected, and can be used by somebody else."""
        made = self._connection._get_socket() if self._connection else None
        return made is not None and not closed(made)

    def close(self) -> None:
        if (connection := self._connection) is not None:
            self._connection = None
            connection.disconnect()

    def _asked(self, commands: Sequence[Command], kept: int, *, all_raise: bool = True) -> list[Any]:
        with self.translated():
            try:
                connection = self._connection or self._connected()
                connection.answers.cancelled = self.cancelled
                connection.answers.begin(kept)
                connection.send_packed_command(connection.pack_commands(commands))
                answers = [_answer(connection) for _ in commands]
            except BaseException:
                self.close()
                if self.cancelled.is_set():
                    raise Stopped("the stream was told to stop.", integration_id=self._guard.integration_id) from None
                raise
            if all_raise:
                for each in answers:
                    if isinstance(each, exceptions.ResponseError):
                        raise each
            return answers

    def _connected(self) -> _Connection:
        target = self.target
        host, port = self._found() if target.service else (target.hosts or (("", 0),))[0]
        connection = self._made(host, port, target.login, target.database)
        self._connection = connection
        if target.service:
            self._check_role(connection)
        return connection

    def _found(self) -> tuple[str, int]:
        """Of the first Sentinel that knows."""
        problem: Exception | None = None
        for host, port in self.target.hosts:
            try:
                sentinel = self._made(host, port, self.target.sentinel_login, 0)
                try:
                    sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", str(self.target.service))
                    answer = sentinel.read_response()
                finally:
                    sentinel.disconnect()
            except (exceptions.RedisError, OSError, Exhausted, ChurnGuardError) as error:
                problem = error
                continue
            if isinstance(answer, list) and len(answer) == 2 and all(isinstance(each, bytes) for each in answer):
                name, number = (each.decode("ascii", "replace") for each in answer)
                return name, int(number) if number.isdecimal() and len(number) < 6 else 0
            problem = InvalidConfiguration(
                f"its Sentinel knows no service “{self.target.service}”.",
                integration_id=self._guard.integration_id,
                remedy="Correct the URL's path: sentinel://host/service.",
            )
        assert problem is not None
        raise problem

    def _made(self, host: str, port: int, login: Login, database: int) -> _Connection:
        connection = _Connection(self._guard, self.target, self.cancelled, host, port, login, database)
        connection.connect()
        return connection

    def _check_role(self, connection: _Connection) -> None:
        """Sentinels may be late; a replica's groups cannot be moved."""
        connection.send_command("ROLE")
        try:
            role = connection.read_response()
        except exceptions.NoPermissionError:
            return
        if role[:1] != [b"master"]:
            self.close()
            raise exceptions.ReadOnlyError("the server that its Sentinel named leads no more")

    @contextmanager
    def translated(self) -> Iterator[None]:
        """The library's errors become ours."""
        try:
            yield
        except (exceptions.RedisError, OSError, Exhausted, RecursionError) as error:
            raise self._as_ours(error) from None

    def _as_ours(self, error: Exception) -> ChurnGuardError:
        name = self._guard.integration_id
        words = repeated(name, str(error).rstrip("."), shown=not self._guard.restricted)
        match error:
            case exceptions.AuthenticationError() | exceptions.AuthenticationWrongNumberOfArgsError():
                return AuthenticationFailed(
                    f"Redis refuses the credentials{words}.",
                    integration_id=name,
                    remedy="Correct username and password, in the URL or beside it.",
                )
            case exceptions.NoPermissionError():
                return PermissionMissing(
                    f"Redis refuses permission{words}.",
                    integration_id=name,
                    remedy=f"`ACL SETUSER {self.target.login.username or 'default'} {_RULES} ~<key>` for each of its "
                    "streams.",
                )
            case exceptions.AskError():  # and MovedError, which is one
                return InvalidConfiguration(
                    "another node of a Redis cluster has this stream.",
                    integration_id=name,
                    remedy="Name the node that has all of its keys in the URL; a cluster as a whole is not read.",
                )
            case exceptions.ResponseError() if str(error).startswith("WRONGTYPE"):
                return InvalidConfiguration(
                    "one of its topics is no Redis stream.", integration_id=name, remedy="Correct `topics`."
                )
            case exceptions.ResponseError() if "unknown command" in str(error) or "syntax error" in str(error):
                return InvalidConfiguration(
                    f"the server does not know what it is asked{words}.",
                    integration_id=name,
                    remedy="Redis 7.0 and newer, or Valkey, can be read.",
                )
        return ProviderUnavailable(
            f"Redis cannot be used{words}.",
            integration_id=name,
            remedy="It is tried again; if it lasts, correct the URL or look after the server.",
        )


@contextmanager
def understood(guard: AddressGuard) -> Iterator[None]:
    """An answer of another shape than Redis' is an error of the server's."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        _log.warning("%s: an answer was not understood", guard.integration_id, exc_info=error)
        raise ProviderUnavailable(
            "Redis answers what cannot be understood.",
            integration_id=guard.integration_id,
            remedy="It is tried again; if it lasts, look whether Redis is what listens there.",
        ) from None


def _answer(connection: _Connection) -> Any:
    """An error of one command is its answer: those of the others are still to be read."""
    try:
        return connection.read_response(disconnect_on_error=False)
    except exceptions.ResponseError as error:
        return error


class _Connection(Connection):
    """To an address that the guard lets pass; what a certificate names is the host of the configuration, or the one
    that a Sentinel told."""

    def __init__(
        self,
        guard: AddressGuard,
        target: Target,
        cancelled: Event,
        host: str,
        port: int,
        login: Login,
        database: int,
    ) -> None:
        self._guard, self._target = guard, target
        super().__init__(
            host=host,
            port=port,
            db=database,
            username=login.username,
            password=login.password,
            protocol=2,
            parser_class=Answers,
            driver_info=None,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=CONNECT_SECONDS,
        )
        self.answers: Answers = self._parser
        self.answers.cancelled = cancelled

    def _connect(self) -> socket.socket:
        self.answers.begin()
        if self._target.socket is not None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(CONNECT_SECONDS)
            made.connect(self._target.socket)
        else:
            made = connected_socket(self._guard.resolve(self.host, self.port), self.port)
            made.settimeout(CONNECT_SECONDS)
            if self._target.tls:
                made = self._encrypted(made)
        made.settimeout(ANSWER_SECONDS)
        return made

    def _encrypted(self, made: socket.socket) -> ssl.SSLSocket:
        try:
            context = ssl.create_default_context(cadata=self._target.authority)
            return context.wrap_socket(made, server_hostname=self.host)
        except ssl.SSLError as error:
            made.close()
            if error.reason in _NOT_TRUSTED:
                raise InvalidConfiguration(
                    f"no TLS connection to Redis can be made{self._heard(error)}.",
                    integration_id=self._guard.integration_id,
                    remedy="Its certificate has to name the URL's host; for an authority of your own give its "
                    "certificate as connection_config.tls_ca.",
                ) from None
            raise
        except BaseException:
            made.close()
            raise

    def _heard(self, error: ssl.SSLError) -> str:
        return repeated(self._guard.integration_id, str(error.reason or error), shown=not self._guard.restricted)
