"""Any JSON, newline-delimited JSON, CSV or XML endpoint, read as an ingestion rule says. A rule is an integration."""

from __future__ import annotations

from collections.abc import Generator

from churnguard_pipelines.connectors.rest.credentials import FIELDS, RuleCredential
from churnguard_pipelines.connectors.rest.keys import KEY
from churnguard_pipelines.connectors.rest.preview import Preview, preview
from churnguard_pipelines.connectors.rest.reading import Pass
from churnguard_pipelines.connectors.rest.requests import Requests
from churnguard_pipelines.connectors.sdk import ApiConnector, ChildView, ConnectionReport, Object, ObjectAccess, Reading
from churnguard_pipelines.connectors.sdk.custom_fields import refuse_unknown
from churnguard_pipelines.engine.auth import TokenKeeper
from churnguard_pipelines.engine.quota import Quota
from churnguard_pipelines.errors import AuthenticationFailed, InvalidConfiguration, ProviderError
from churnguard_pipelines.model import IntegrationConfiguration, IntegrationType, RuleIntegration
from churnguard_pipelines.records import Batch

RECORDS = "records"
"""The object of every rule. What a rule maps is in its integration's view; the table is one for all."""


class Rest(ApiConnector):
    provider, kind, title = "rest", IntegrationType.CUSTOM, "The endpoint"
    settings = ()
    objects = (Object(RECORDS, "", (), key=KEY),)

    @classmethod
    def check_fields(cls, integration: IntegrationConfiguration) -> None:
        refuse_unknown(rule_of(integration), FIELDS)

    @classmethod
    def credential(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> RuleCredential:
        return RuleCredential(rule_of(integration), tokens)

    @classmethod
    def quota(cls, integration: IntegrationConfiguration) -> Quota:
        """What the rule says: nobody else knows."""
        return Quota(per_second=rule_of(integration).rule.requests_per_minute / 60, reserve=0)

    @classmethod
    def child_views(cls, integration: IntegrationConfiguration, item: Object) -> tuple[ChildView, ...]:
        children = rule_of(integration).rule.children
        return tuple(ChildView(name, each.path, each.field_mappings) for name, each in children.items())

    def identity(self) -> None:
        """Nobody knows whose an endpoint is; a position says itself what it belongs to."""

    def check(self) -> ConnectionReport:
        rule = rule_of(self.integration)
        try:
            self.preview()
        except AuthenticationFailed:
            raise
        except (ProviderError, InvalidConfiguration) as error:
            access = ObjectAccess(RECORDS, False, error.message, error.remedy)
        else:
            access = ObjectAccess(RECORDS, True)
        return ConnectionReport(rule.integration_id, rule.rule.endpoint_url.host, (access,))

    def preview(self) -> Preview:
        """The first records and what is found out from them. Nothing is stored."""
        return preview(rule_of(self.integration), self._requests)

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        yield from Pass(rule_of(self.integration), self._requests, reading).batches()

    @property
    def _requests(self) -> Requests:
        return Requests(rule_of(self.integration), self.http)


def rule_of(integration: IntegrationConfiguration) -> RuleIntegration:
    """Raises ``InvalidConfiguration`` for an integration that is no rule."""
    if not isinstance(integration, RuleIntegration):
        raise InvalidConfiguration(
            "an integration of `rest` is an ingestion rule.",
            integration_id=integration.integration_id,
            remedy="Add the rule, by `churnguard rules add FILE.yaml` or `POST /api/ingestion/rules`.",
        )
    return integration
