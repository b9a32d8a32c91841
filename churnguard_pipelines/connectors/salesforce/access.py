"""What a person gives to let us into Salesforce, by each of its flows."""

from __future__ import annotations

from dataclasses import replace

from churnguard_pipelines.connectors.sdk.access import Access, Entry, Setting
from churnguard_pipelines.model import CredentialType

_CLIENT_ID = Entry("client_id", "the consumer key of the connected (or external client) app")
_CLIENT_SECRET = Entry("client_secret", "its consumer secret", secret=True)
_PUBSUB = Entry(
    "pubsub_url",
    "of real_time: where the Pub/Sub API is, unless at https://api.pubsub.salesforce.com:7443",
    optional=True,
)

ACCESS = (
    Access(
        "sign_in", "Sign in at Salesforce", CredentialType.OAUTH2,
        (_CLIENT_ID, replace(_CLIENT_SECRET, optional=True), _PUBSUB), signs_in=True,
    ),
    Access(
        "jwt_bearer", "A certificate (JWT bearer)", CredentialType.JWT_BEARER,
        (
            _CLIENT_ID,
            Entry("username", "the user on whose behalf is read"),
            Entry("private_key", "the RSA key in PEM form whose certificate the app has", secret=True, long=True),
            Entry(
                "audience", "who the assertion is for, where it is neither login nor test.salesforce.com", optional=True
            ),
            _PUBSUB,
        ),
    ),
    Access(
        "client_credentials", "The app's own user (client credentials)", CredentialType.CLIENT_CREDENTIALS,
        (_CLIENT_ID, _CLIENT_SECRET, _PUBSUB),
    ),
    Access(
        "session", "A session's id, for a quick look", CredentialType.BEARER,
        (Entry("access_token", "the session's id; it ends with the session", secret=True), _PUBSUB),
    ),
)  # fmt: skip
SETTINGS = (
    Entry(
        Setting.BASE_URL, "the My Domain, https://….my.salesforce.com; login.salesforce.com if left out", optional=True
    ),
    Entry(Setting.API_VERSION, "of Salesforce's API, as 65.0; ours if left out", optional=True),
)
