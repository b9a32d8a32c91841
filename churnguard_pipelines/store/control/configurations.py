"""What people configure beside integrations, its secrets sealed: see ``streams`` and ``rules``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.errors import InvalidConfiguration, NotFound
from churnguard_pipelines.model import APIIngestionRule, ConfiguredBy, Organization, StreamConfiguration, revealed
from churnguard_pipelines.store.control import audit
from churnguard_pipelines.store.control.masking import MASK, Document, Path, Secrets, keep, mask, unmask
from churnguard_pipelines.store.control.organizations import add_to, no_organization
from churnguard_pipelines.store.control.ownership import Kind, claim
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.deadlocks import past_deadlocks
from churnguard_pipelines.store.secrets import Vault, readable
from churnguard_pipelines.wrong_fields import problem

_WORDS = {"name", "description"}
"""Fields that change nothing of what is done."""

Model = TypeVar("Model", StreamConfiguration, APIIngestionRule)


@dataclass(frozen=True, slots=True)
class Configured(Generic[Model]):
    """A stored configuration. ``masked``: the configuration as JSON, without its secrets."""

    configuration: Model
    masked: Document
    created_at: datetime
    created_by: str | None


class Configurations(Generic[Model]):
    """The stored configurations of one kind. Those of one kind. ``secret``: whether the value at a path of a
    configuration's JSON is one; ``where``: secrets are sent; ``address``: the field it is in. Ids are unique over the
    installation, and stay with the organization that used one first."""

    _more_kinds: tuple[Kind, ...] = ()
    """Of other things that have the same id."""

    def __init__(
        self,
        model: type[Model],
        table: sa.Table,
        kind: Kind,
        secret: Callable[[Path, Any], bool],
        where: Callable[[Document], set[tuple[str, ...]]],
        address: str,
    ) -> None:
        self.what = kind.value
        self._kinds = (kind, *self._more_kinds)
        self._model: type[Model] = model
        self._table = table
        (self._key,) = table.primary_key.columns
        self._secret = secret
        self._destinations = where
        self._address = address

    def add(
        self,
        store: Store,
        configuration: Model,
        *,
        actor: str,
        organization: Organization | None = None,
        also: Callable[[Connection], None] = lambda connection: None,
    ) -> Configured[Model]:
        """In one transaction with ``organization``, if that is new, and with what ``also`` stores once it is there.

        Raises ``InvalidConfiguration`` if the id is taken, the organization is unknown, or a mask stands for
        a secret."""
        document = _plain(configuration.model_dump())
        id_, organization_id = document[self._key.name], configuration.organization_id
        values = {self._key.name: id_, "organization_id": organization_id, "created_by": actor}
        statement = insert(self._table).values(values | self._row(store.vault, document))
        with store.operator() as connection:
            if organization is not None:
                add_to(connection, organization, actor=actor)
            if not all(claim(connection, kind, id_, organization_id) for kind in self._kinds):
                raise InvalidConfiguration(
                    f"the id {id_!r} is, or was, another organization's.", remedy=f"Choose another {self._key.name}."
                )
            try:
                self._adding(connection, store, configuration, actor)
                added = connection.scalar(statement.on_conflict_do_nothing().returning(self._key))
            except sa.exc.IntegrityError:
                raise no_organization(organization_id) from None
            if added is None:
                raise InvalidConfiguration(
                    f"there is a {self.what} {id_!r} already.",
                    remedy=f"Choose another {self._key.name}, or change that one: "
                    f"`churnguard {self.what}s add FILE.yaml --replace`.",
                )
            also(connection)
            self._note(connection, actor, "add", id_, organization_id)
        return self.get(store, id_)

    def list(self, store: Store, organization_id: str | None = None) -> list[Configured[Model]]:
        """With their secrets opened, where they can be; ``organization_id``: None for all. Raises ``SecretsUnreadable``
        if none can."""
        statement = sa.select(self._table).order_by(self._table.c.organization_id, self._key)
        if organization_id is not None:
            statement = statement.where(self._table.c.organization_id == organization_id)
        with store.operator() as connection:
            rows = connection.execute(statement).all()
        return readable(rows, lambda row: self._opened(store.vault, row), self._key.name)

    def get(self, store: Store, id_: str, organization_id: str | None = None) -> Configured[Model]:
        """With its secrets opened; ``organization_id``: only if it is this one's, else not even looked into. Raises
        ``NotFound`` or ``SecretsUnreadable``."""
        with store.operator() as connection:
            row = self._find(connection, id_)
        if organization_id not in (None, row.organization_id):
            raise self._unknown(id_)
        return self._opened(store.vault, row)

    def change(
        self,
        store: Store,
        id_: str,
        changes: Mapping[str, Any],
        *,
        actor: str,
        by: ConfiguredBy = "operator",
        approve: Callable[[Model], None] = lambda changed: None,
    ) -> Configured[Model]:
        """``changes``: new values of fields; what is left out stays. Inside a field it is so for secrets: one that is
        left out or masked is kept, null forgets it. Credentials of another type replace all those before. Where secrets
        would be sent to another place they must be given again: who may change it need not know them.
        ``by``: who changes it; ``approve``: raises if what came out may not be.

        Raises ``NotFound``, or ``InvalidConfiguration`` naming the field, never its value.
        """
        with store.operator() as connection:
            row = self._locked(connection, id_)
            before = _plain(self._opened(store.vault, row).configuration.model_dump())
            _, secrets = mask(before, self._secret)
            document = before | _plain(dict(changes))
            kept = [each for each in secrets if not _outdated(each[0], before, document)]
            keep(document, kept)
            for name in changes:
                if isinstance(document[name], dict):
                    document[name] = {key: value for key, value in document[name].items() if value is not None}
            document["configured_by"] = self._configured_by(
                before["configured_by"], [path for path, _ in kept], changes, by
            )
            approve(made := self._validated(document))
            changed = _plain(made.model_dump())
            if self._destinations(changed) - self._destinations(before):
                _refuse_unless_given([path for path, _ in kept], changes)
            statement = sa.update(self._table).where(self._key == id_).values(self._row(store.vault, changed))
            connection.execute(statement)
            self._changed(connection, store, made, changes)
            self._note(connection, actor, "change", id_, row.organization_id, {"fields": sorted(changes)})
        return self.get(store, id_)

    def _configured_by(
        self, before: ConfiguredBy, secrets: Sequence[Sequence[str]], changes: Mapping[str, Any], by: ConfiguredBy
    ) -> ConfiguredBy:
        """It is an organization's that one changed in what it does; an operator's only once the whole address is one's
        own: a secret that was kept may be part of it."""
        if by == "organization":
            return "organization" if set(changes) - _WORDS else before
        left = _not_given([path for path in secrets if path[0] == self._address], changes)
        return "operator" if self._address in changes and not left else before

    def remove(self, store: Store, id_: str, *, actor: str) -> None:
        """Raises ``NotFound``."""

        def forget() -> None:
            with store.operator() as connection:
                row = self._locked(connection, id_)
                connection.execute(sa.delete(self._table).where(self._key == id_))
                self._removed(connection, id_, row.organization_id)
                self._note(connection, actor, "remove", id_, row.organization_id)

        past_deadlocks(forget)

    def _locked(self, connection: Connection, id_: str) -> Row[Any]:
        """Nobody else changes it until the transaction ends."""
        return self._find(connection, id_, lock=True)

    def _adding(self, connection: Connection, store: Store, configuration: Model, actor: str) -> None:
        """What else is stored, before it, in the same transaction."""

    def _changed(self, connection: Connection, store: Store, configuration: Model, changes: Mapping[str, Any]) -> None:
        """The same, of its other state."""

    def _removed(self, connection: Connection, id_: str, organization_id: str) -> None:
        """What else goes with it."""

    def _row(self, vault: Vault, document: Document) -> dict[str, Any]:
        masked, secrets = mask(document, self._secret)
        own = (self._key.name, "organization_id", "configured_by")
        config = {name: value for name, value in masked.items() if name not in own}
        sealed = vault.seal(json.dumps(secrets))
        return {"config": config, "secrets_sealed": sealed, "configured_by": document["configured_by"]}

    def _opened(self, vault: Vault, row: Row[Any]) -> Configured[Model]:
        own = {"organization_id": row.organization_id, "configured_by": row.configured_by}
        masked = {self._key.name: row._mapping[self._key], **own, **row.config}
        opened = self._model.model_validate(unsealed(vault, masked, row.secrets_sealed))
        return Configured(opened, masked, row.created_at, row.created_by)

    def _validated(self, document: Document) -> Model:
        try:
            return self._model.model_validate(document)
        except ValidationError as error:
            problems = (f"{'.'.join(map(str, each['loc']))}: {problem(each, ())}" for each in error.errors())
            raise InvalidConfiguration(f"{'; '.join(problems)}.") from None  # what it came from holds the values

    def _find(self, connection: Connection, id_: str, *, lock: bool = False) -> Row[Any]:
        statement = sa.select(self._table).where(self._key == id_)
        row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
        if row is None:
            raise self._unknown(id_)
        return row

    def _unknown(self, id_: str) -> NotFound:
        return NotFound(
            f"there is no {self.what} {id_!r}.", remedy=f"`churnguard {self.what}s list` shows those there are."
        )

    def _note(
        self,
        connection: Connection,
        actor: str,
        deed: str,
        id_: str,
        organization_id: str,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        action = f"{self.what.replace(' ', '_')}.{deed}"
        audit.record(connection, actor, action, id_, detail, organization_id=organization_id)


def unsealed(vault: Vault, masked: Document, secrets_sealed: str) -> Document:
    """A stored configuration with its secrets. Raises ``SecretsUnreadable``."""
    secrets: Secrets = json.loads(vault.open(secrets_sealed))
    return unmask(masked, secrets)


def _plain(value: dict[str, Any]) -> Document:
    plain: Document = to_jsonable_python(revealed(value))
    return plain


def _outdated(path: Sequence[str], before: Document, after: Document) -> bool:
    """Whether it belongs to credentials of a type that is no longer used."""
    if path[0] != "authentication" or not isinstance(after["authentication"], dict):
        return False
    return bool(after["authentication"].get("credential_type") != before["authentication"]["credential_type"])


def _refuse_unless_given(paths: Sequence[Sequence[str]], changes: Mapping[str, Any]) -> None:
    for path in _not_given(paths, changes):
        raise InvalidConfiguration(
            f"{'.'.join(path)}: it would be sent to another place than before.", remedy="Give the secret again."
        )


def _not_given(paths: Sequence[Sequence[str]], changes: Mapping[str, Any]) -> list[Sequence[str]]:
    def value(path: Sequence[str]) -> Any:
        found: Any = changes
        for name in path:
            found = found.get(name, MASK) if isinstance(found, Mapping) else MASK
        return found

    return [path for path in paths if value(path) == MASK]
