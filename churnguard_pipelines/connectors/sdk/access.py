"""How a connector declares what a person has to give: the ways in, each with its fields, and settings of its own.

Forms are made of these declarations, and files are checked against them: no page knows a provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from churnguard_pipelines.model import CredentialType, IntegrationCredentials

STANDARD = frozenset(IntegrationCredentials.model_fields) - {"credential_type", "custom_fields"}
"""Fields that the credentials of any provider may have; all others are custom fields."""


class Setting(StrEnum):
    """Fields of the configuration itself that a connector may ask for."""

    BASE_URL = "base_url"
    API_VERSION = "api_version"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that a person gives. ``name``: a field of ``IntegrationCredentials``, one of its ``custom_fields``, or
    a :class:`Setting`; ``what``: it is and where to find it, to be read after the name; ``secret``: nobody is shown it
    again; ``choices``: all that it may be; ``long``: it has several lines."""

    name: str
    what: str
    optional: bool = False
    secret: bool = False
    choices: tuple[str, ...] = ()
    long: bool = False


@dataclass(frozen=True, slots=True)
class Access:
    """One way to prove who we are. ``name``: among those of the provider, as it stands in addresses; ``title``: for
    people; ``signs_in``: the provider's own page lets us in, which gives the tokens that ``entries`` do not name."""

    name: str
    title: str
    type: CredentialType
    entries: tuple[Entry, ...]
    signs_in: bool = False


def app_entries(where: str) -> tuple[Entry, ...]:
    """Of an app that people let in. ``where``: to find them."""
    return (
        Entry("client_id", f"of the app that people let in; {where}"),
        Entry("client_secret", f"of the app that people let in; {where}", secret=True),
    )


def fields_of(ways: Iterable[Access]) -> Mapping[str, str]:
    """The custom fields that credentials of any of these ways may hold, each with what it is."""
    return {entry.name: entry.what for way in ways for entry in way.entries if entry.name not in STANDARD}
