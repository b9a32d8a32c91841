"""Dagster's own web server as a part of ours: whoever may not write gets a context in which nothing can be changed."""

from collections.abc import Callable
from typing import Any

from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster_webserver.webserver import DagsterWebserver
from graphql import FieldNode, GraphQLError, OperationDefinitionNode, OperationType, parse
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse

from webhook_gateway.dashboard.principal import SCOPE, Principal

PREFIX = "/dashboard"
POLL_MILLISECONDS = 2000


class PrincipalProcessContext(WorkspaceProcessContext):
    """Dagster asks the context of each request what may be done; its UI hides what may not."""

    def create_request_context(self, source: object | None = None) -> WorkspaceRequestContext:
        may_write = isinstance(source, HTTPConnection) and source.scope[SCOPE].may_write
        return WorkspaceRequestContext(
            instance=self.instance,
            current_workspace=self.get_current_workspace(),
            process_context=self,
            version=self.version,
            source=source,
            read_only=not may_write,
        )


class DagsterUi(DagsterWebserver[PrincipalProcessContext, WorkspaceRequestContext]):
    """``on_change`` is told each GraphQL mutation: who, and its fields."""

    def __init__(self, context: PrincipalProcessContext, on_change: Callable[[Principal, list[str]], None]) -> None:
        super().__init__(context, PREFIX, POLL_MILLISECONDS)
        self._on_change = on_change

    def graphql_execution_thread(
        self, request: Request, query: str, variables: dict[str, Any] | None, operation_name: str | None
    ) -> JSONResponse:
        principal: Principal = request.scope[SCOPE]
        if principal.may_write and (changed := _mutations(query)):
            self._on_change(principal, changed)
        return super().graphql_execution_thread(request, query, variables, operation_name)


def _mutations(query: str) -> list[str]:
    if "mutation" not in query:
        return []
    try:
        document = parse(query)
    except GraphQLError:
        return []  # Dagster answers that
    return [
        selection.name.value
        for definition in document.definitions
        if isinstance(definition, OperationDefinitionNode) and definition.operation is OperationType.MUTATION
        for selection in definition.selection_set.selections
        if isinstance(selection, FieldNode)
    ]
