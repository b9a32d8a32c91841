"""Dagster's own web server as a part of ours: whoever may not write gets a context in which nothing can be changed."""

from asyncio import Task
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster_webserver.webserver import DagsterWebserver
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLFormattedError,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    parse,
)
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from churnguard_pipelines.foreign_text import on_one_line
from webhook_gateway.dashboard.authentication import DAGSTER
from webhook_gateway.dashboard.edge import NO_FOREIGN_PARTS
from webhook_gateway.dashboard.principal import SCOPE, Principal

POLL_MILLISECONDS = 2000
MOST_CHARACTERS = 64 * 1024
"""Of a query, without its variables. Half a megabyte of operations kept the interpreter busy for 50 seconds."""
MOST_OF_A_SUBSCRIPTION = 16 * 1024
"""Characters. The loop itself reads what comes by websocket, and everybody waits for it."""
OF_NO_CONSEQUENCE = {"logTelemetry", "setNuxSeen"}  # the UI sends them by itself

OnChange = Callable[[Principal, str, list[str]], None]


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
    """``on_change`` is told each change that may be executed: who; of a GraphQL mutation its operation's name and its
    fields, of a report the asset and the kind."""

    def __init__(self, context: PrincipalProcessContext, on_change: OnChange) -> None:
        super().__init__(context, DAGSTER, POLL_MILLISECONDS)
        self._on_change = on_change

    def graphql_execution_thread(
        self, request: Request, query: str, variables: dict[str, Any] | None, operation_name: str | None
    ) -> JSONResponse:
        principal: Principal = request.scope[SCOPE]
        if len(query) > MOST_CHARACTERS:
            return JSONResponse({"errors": [{"message": f"A query has at most {MOST_CHARACTERS} characters."}]}, 400)
        for operation, fields in _mutations(query):
            if request.method == "GET":  # which a page of any other site can have a browser send
                return JSONResponse({"errors": [{"message": "Send changes by POST."}]}, 405, {"Allow": "POST"})
            if principal.may_write and set(fields) - OF_NO_CONSEQUENCE:
                self._on_change(principal, operation, fields)
        return super().graphql_execution_thread(request, query, variables, operation_name)

    async def execute_graphql_subscription(
        self,
        websocket: WebSocket,
        operation_id: str,
        query: str,
        variables: dict[str, Any] | None,
        operation_name: str | None,
    ) -> tuple[Task[None] | None, GraphQLFormattedError | None]:
        if len(query) > MOST_OF_A_SUBSCRIPTION:
            return None, {"message": f"A subscription has at most {MOST_OF_A_SUBSCRIPTION} characters."}
        return await super().execute_graphql_subscription(websocket, operation_id, query, variables, operation_name)

    async def report_asset_materialization_endpoint(self, request: Request) -> JSONResponse:
        await self._note_report(request, "report_asset_materialization")
        return await super().report_asset_materialization_endpoint(request)

    async def report_asset_check_endpoint(self, request: Request) -> JSONResponse:
        await self._note_report(request, "report_asset_check")
        return await super().report_asset_check_endpoint(request)

    async def report_asset_observation_endpoint(self, request: Request) -> JSONResponse:
        await self._note_report(request, "report_asset_observation")
        return await super().report_asset_observation_endpoint(request)

    def make_csp_header(self, nonce: str) -> str:
        return f"{super().make_csp_header(nonce).rstrip('; ')}; {NO_FOREIGN_PARTS}; frame-ancestors 'none'"

    async def _note_report(self, request: Request, what: str) -> None:
        principal: Principal = request.scope[SCOPE]
        if principal.may_write:  # Dagster refuses the others
            await run_in_threadpool(self._on_change, principal, on_one_line(await _asset(request), 200), [what])


async def _asset(request: Request) -> str:
    """Which one a report is of: Dagster takes it from the path, the body or the query."""
    if named := request.path_params.get("asset_key"):
        return str(named)
    with suppress(ValueError):
        body = await request.json()
        if isinstance(body, dict) and "asset_key" in body:
            return str(body["asset_key"])
    return request.query_params.get("asset_key", "")


def _mutations(query: str) -> Iterator[tuple[str, list[str]]]:
    try:
        document = parse(query)
    except GraphQLError:
        return  # Dagster answers that
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode) and definition.operation is OperationType.MUTATION:
            name = definition.name.value if definition.name else ""
            yield name, list(_fields(document, definition.selection_set, frozenset()))


def _fields(document: DocumentNode, selected: SelectionSetNode, seen: frozenset[str]) -> Iterator[str]:
    for selection in selected.selections:
        if isinstance(selection, FieldNode):
            yield selection.name.value
        elif isinstance(selection, InlineFragmentNode):
            yield from _fields(document, selection.selection_set, seen)
        elif isinstance(selection, FragmentSpreadNode) and selection.name.value not in seen:
            for each in document.definitions:
                if isinstance(each, FragmentDefinitionNode) and each.name.value == selection.name.value:
                    yield from _fields(document, each.selection_set, seen | {each.name.value})
