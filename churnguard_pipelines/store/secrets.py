"""Seals secrets with Fernet (AES-128-CBC + HMAC-SHA256) under one or more keys, and keeps the key itself."""

from __future__ import annotations

import logging
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Row

from churnguard_pipelines.errors import InvalidConfiguration, SecretsUnreadable
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.private_files import keep_private

Found = TypeVar("Found")
_log = logging.getLogger(__name__)
_REMEDY = "Make one with `churnguard keys create`, or set INTEGRATION_ENCRYPTION_KEY."


class Vault:
    """Seals and opens secrets. ``keys``: a comma-separated list of Fernet keys (32 bytes, URL-safe base64). The first
    seals, all open."""

    def __init__(self, keys: str) -> None:
        self._keys = [key.strip() for key in keys.split(",") if key.strip()]
        try:
            self._fernet = MultiFernet([Fernet(key) for key in self._keys])
        except ValueError:
            raise InvalidConfiguration(
                "the encryption key is malformed: each must be 32 bytes in URL-safe base64, separated by commas.",
                remedy=_REMEDY,
            ) from None

    def for_purpose(self, purpose: str) -> Vault:
        """One under keys derived from ours: what it seals opens nowhere else, and nothing else opens in it."""
        return Vault(",".join(_derived(key, purpose) for key in self._keys))

    def __repr__(self) -> str:
        return "Vault(…)"

    def seal(self, secret: str) -> str:
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """Raises ``SecretsUnreadable`` if none of the keys opens it."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise _unreadable() from None

    def rotate(self, sealed: str) -> str:
        """The same secret sealed anew under the first key."""
        try:
            return self._fernet.rotate(sealed.encode()).decode()
        except InvalidToken:
            raise _unreadable() from None


def readable(rows: Iterable[Row[Any]], opened: Callable[[Row[Any]], Found], key: str) -> list[Found]:
    """Each row as it is opened; one that cannot be hides no other, and is logged by its ``key``. If none can, it is the
    encryption key that is wrong: raises what the first one does."""
    found, errors = [], []
    for row in rows:
        try:
            found.append(opened(row))
        except (SecretsUnreadable, ValueError) as error:
            _log.error("%s %s cannot be read (%s)", key, row._mapping[key], type(error).__name__)
            errors.append(error)
    if errors and not found:
        raise errors[0]
    return found


def key_file(settings: Settings) -> Path:
    return settings.home / "encryption.key"


def load_vault(settings: Settings, create: bool = False) -> Vault:
    """``create``: make a key and its file (mode 0600) if there is none. Raises ``InvalidConfiguration`` otherwise."""
    path = key_file(settings)
    if create and settings.encryption_key is None and not path.exists():
        _create(path)
    return Vault(load_keys(settings))


def load_keys(settings: Settings) -> str:
    """``INTEGRATION_ENCRYPTION_KEY`` or, without it, what is in ``<home>/encryption.key``; as :class:`Vault` takes it.

    Raises ``InvalidConfiguration`` if there is neither.
    """
    if settings.encryption_key is not None:
        return settings.encryption_key.get_secret_value()
    path = key_file(settings)
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise InvalidConfiguration("there is no encryption key, so secrets cannot be kept.", remedy=_REMEDY) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"the encryption key in {path} cannot be read: {error}.", remedy=_REMEDY) from None


def _create(path: Path) -> None:
    """Of two processes at once both end up with the same key: ``link`` refuses to replace a file."""
    keep_private(path.parent)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.touch(mode=0o600, exist_ok=False)
    draft.write_bytes(Fernet.generate_key())
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _derived(key: str, purpose: str) -> str:
    derived = HKDF(hashes.SHA256(), 32, salt=None, info=purpose.encode()).derive(urlsafe_b64decode(key))
    return urlsafe_b64encode(derived).decode()


def _unreadable() -> SecretsUnreadable:
    return SecretsUnreadable(
        "a stored secret does not open with the encryption key.",
        remedy="Set INTEGRATION_ENCRYPTION_KEY to the key it was sealed with (several: comma-separated, newest first).",
    )
