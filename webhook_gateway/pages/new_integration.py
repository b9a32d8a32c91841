"""Adding an integration: choose a provider, fill in what its connector declares, see what the check found, save it.

What was filled in waits sealed in a draft of the login's; nothing of it that is secret comes back to the browser.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from secrets import token_hex
from textwrap import dedent
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from markupsafe import escape
from starlette.concurrency import run_in_threadpool

from churnguard_pipelines.connectors import connector
from churnguard_pipelines.connectors.sdk import ConnectionReport, Connector, ObjectAccess
from churnguard_pipelines.connectors.sdk.access import Access
from churnguard_pipelines.engine.addresses import check_addresses
from churnguard_pipelines.engine.tokens import with_token
from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration
from churnguard_pipelines.model import Identifier, IntegrationConfiguration
from churnguard_pipelines.store.control import drafts
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import list_organizations
from churnguard_pipelines.syncing import signing_in
from churnguard_pipelines.syncing.signing_in import SigningIn
from churnguard_pipelines.syncing.sync import check_configuration
from webhook_gateway.api.access import TheEngine, TheStore, Writer, organization_of, own_organization
from webhook_gateway.api.problems import status_of
from webhook_gateway.dashboard.authentication import COOKIE
from webhook_gateway.dashboard.principal import Principal
from webhook_gateway.pages import declared_form as form
from webhook_gateway.pages.messages import done
from webhook_gateway.pages.rendering import rendered

router = APIRouter(prefix="/integrations/new")
BACK = "/integrations/new/signed-in"
"""Where providers send the browser back to; it is registered with the app there."""
MOST_FIELDS = 1_000
DraftId = Annotated[str, Query(max_length=100)]


@router.get("")
def providers(principal: Writer, request: Request) -> Response:
    return rendered(request, "new_integration.html", kinds=form.addable())


@router.get("/drafts/{draft_id}")
def checked(draft_id: str, principal: Writer, request: Request, store: TheStore) -> Response:
    """What the check of a draft found, or where to sign in before there is one."""
    draft = drafts.find(store, _owner(request, principal), draft_id)
    if draft.get("report") is None and draft.get("signing_in") is None:
        return RedirectResponse(_form_of(draft, draft_id), status_code=303)
    kind, begun = connector(draft["provider"]), draft.get("signing_in")
    return rendered(
        request,
        "checked_integration.html",
        draft_id=draft_id,
        kind=kind,
        name=draft["values"]["integration_name"],
        change=_form_of(draft, draft_id),
        report=_report(draft["report"]) if draft.get("report") else None,
        url=escape(begun["url"]) if begun else "",
        back=begun["redirect_uri"] if begun else "",
    )


@router.post("/drafts/{draft_id}/save")
def save(draft_id: str, principal: Writer, request: Request, store: TheStore) -> Response:
    """Of what was checked, nothing else."""
    owner = _owner(request, principal)
    draft = drafts.find(store, owner, draft_id)
    if draft.get("report") is None:
        raise InvalidConfiguration("it was not checked yet.", remedy="Check the connection first.")
    made = IntegrationConfiguration.model_validate(draft["integration"])
    add_integration(store, made, principal.id, organization_of(principal, made.organization_id))
    drafts.take(store, owner, draft_id)
    return done(request, f"/integrations/{made.integration_id}", "It is added. Its first sync begins within a minute.")


@router.get("/signed-in")
async def signed_in(principal: Writer, request: Request, engine: TheEngine) -> Response:
    """Back from the provider's page: the code is exchanged for tokens, which are checked at once."""
    owner, answer = _owner(request, principal), dict(request.query_params)
    draft_id = answer.get("state", "").partition(".")[0]
    draft = dict(await run_in_threadpool(drafts.find, engine.store, owner, draft_id))
    if draft.get("signing_in") is None:
        raise InvalidConfiguration("no sign-in is under way.", remedy="Begin again from the form.")
    begun, made = SigningIn(**draft["signing_in"]), IntegrationConfiguration.model_validate(draft["integration"])
    draft["signing_in"] = None  # a code is good for one answer, and so is this
    await run_in_threadpool(drafts.keep, engine.store, owner, draft, draft_id)
    try:
        token = await engine.ask_source(made, partial(signing_in.end, made, begun, answer))
        signed = made.model_copy(update={"credentials": with_token(made.credentials, token)})
        report = await engine.ask_source(signed, partial(check_configuration, engine.store, signed))
    except ChurnGuardError as error:
        return await run_in_threadpool(_form_again, request, principal, engine.store, draft, draft_id, error)
    draft |= {"integration": form.dumped(signed), "report": asdict(report)}
    await run_in_threadpool(drafts.keep, engine.store, owner, draft, draft_id)
    return RedirectResponse(f"/integrations/new/drafts/{draft_id}", status_code=303)


@router.get("/{provider}")
def blank(
    provider: Identifier, principal: Writer, request: Request, store: TheStore, way: str = "", draft: DraftId = ""
) -> Response:
    """``draft``: filled in with what was given before, but for secrets."""
    kind = _kind(provider)
    known = drafts.find(store, _owner(request, principal), draft) if draft else {}
    values = known.get("values") or {"integration_name": kind.title}
    return _form(request, principal, store, kind, form.way_of(kind, way), values, draft_id=draft)


@router.post("/{provider}")
async def check(provider: Identifier, principal: Writer, request: Request, engine: TheEngine) -> Response:
    """Asks the provider, or leads to its page; nothing is stored but the draft."""
    kind, owner = _kind(provider), _owner(request, principal)
    values = await _given(request)
    way, draft_id = form.way_of(kind, values.pop("way", "")), values.pop("draft", "")
    store = engine.store
    if draft_id:  # a secret that was left empty stays
        before = (await run_in_threadpool(drafts.find, store, owner, draft_id))["values"]
        secret = {each.name for each in way.entries if each.secret}
        values |= {name: before[name] for name in secret if before.get(name) and not values.get(name)}
    draft: dict[str, Any] = {"provider": provider, "way": way.name, "values": values}
    draft_id = await run_in_threadpool(drafts.keep, store, owner, draft, draft_id or None)
    try:
        made = await run_in_threadpool(_made, principal, kind, way, values)
        if way.signs_in:
            back, state = f"{_origin(request)}{BACK}", f"{draft_id}.{token_hex(16)}"
            draft["signing_in"] = asdict(await run_in_threadpool(signing_in.begin, made, back, state))
        else:
            report = await engine.ask_source(made, partial(check_configuration, store, made))
            draft["report"] = asdict(report)
    except ChurnGuardError as error:
        return await run_in_threadpool(_form_again, request, principal, store, draft, draft_id, error)
    draft["integration"] = form.dumped(made)
    await run_in_threadpool(drafts.keep, store, owner, draft, draft_id)
    return RedirectResponse(f"/integrations/new/drafts/{draft_id}", status_code=303)


def _made(principal: Principal, kind: type[Connector], way: Access, values: form.Values) -> IntegrationConfiguration:
    chosen = values.get("integration_id") if principal.is_operator else None
    organization = principal.organization_id or own_organization(principal, values.get("organization_id", ""))
    made = form.configuration(
        kind, way, {**values, "organization_id": organization},
        integration_id=chosen or f"{kind.provider}_{token_hex(8)}", created_by=principal.id, by=principal.configures_as,
    )  # fmt: skip
    check_addresses(made)
    return made


def _form_again(
    request: Request,
    principal: Principal,
    store: TheStore,
    draft: Mapping[str, Any],
    draft_id: str,
    error: ChurnGuardError,
) -> Response:
    kind = _kind(draft["provider"])
    way = form.way_of(kind, draft["way"])
    return _form(request, principal, store, kind, way, draft["values"], draft_id=draft_id, error=error)


def _form(
    request: Request,
    principal: Principal,
    store: TheStore,
    kind: type[Connector],
    way: Access,
    values: form.Values,
    *,
    draft_id: str = "",
    error: ChurnGuardError | None = None,
) -> Response:
    wrong = error.fields if isinstance(error, form.WrongFields) else {}
    chosen = values.get(form.OBJECTS)
    return rendered(
        request,
        "integration_form.html",
        200 if error is None else status_of(error),
        kind=kind,
        way=way,
        draft_id=draft_id,
        error=error,
        values=values,
        wrong=wrong,
        credentials=form.shown(way.entries, values, wrong),
        settings=form.shown((*kind.settings, *form.sync_entries(kind)), values, wrong),
        objects=[(name, chosen is None or name in chosen.split("\n")) for name in form.objects_of(kind)],
        organizations=list_organizations(store) if principal.is_operator else [],
        back=f"{_origin(request)}{BACK}",
    )


def _kind(provider: str) -> type[Connector]:
    kind = connector(provider)
    if not kind.access:
        raise InvalidConfiguration(
            f"integrations of {provider} are not added by a form.", remedy="Add one by its file or the API."
        )
    return kind


async def _given(request: Request) -> dict[str, str]:
    """What was filled in; several values of a name are lines of one."""
    try:
        pairs = parse_qsl((await request.body()).decode("utf-8", "replace"), max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidConfiguration(f"a form has at most {MOST_FIELDS:,} fields.") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        clean = dedent(value.replace("\r\n", "\n").replace("\0", "")).strip()
        values[name] = f"{values[name]}\n{clean}" if name in values else clean
    return values


def _origin(request: Request) -> str:
    return f"{'https' if request.app.state.secure else 'http'}://{request.headers.get('host', '')}"


def _owner(request: Request, principal: Principal) -> str:
    """The login, so that nobody goes on with what another browser began."""
    return f"{principal.id} {request.cookies.get(COOKIE, '')}"


def _form_of(draft: Mapping[str, Any], draft_id: str) -> str:
    return f"/integrations/new/{draft['provider']}?way={draft['way']}&draft={draft_id}"


def _report(told: Mapping[str, Any]) -> ConnectionReport:
    objects = tuple(ObjectAccess(**each) for each in told["objects"])
    return ConnectionReport(told["integration_id"], told["identity"], objects)
