"""`churnguard rules …`: read any REST endpoint without code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from churnguard_pipelines.cli import integrations
from churnguard_pipelines.cli.integrations import ACTOR, shown
from churnguard_pipelines.cli.sync import sync
from churnguard_pipelines.cli.terminal import as_json, opened_store, out
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.records import DataSyncMode

if TYPE_CHECKING:
    from churnguard_pipelines.connectors.rest.preview import Preview

app = typer.Typer(help="Read any JSON, NDJSON, CSV or XML endpoint on a schedule.", no_args_is_help=True)

RuleId = Annotated[str, typer.Argument(metavar="RULE", help="The rule's id.")]
RuleFile = Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Rule file; ${ENV_VAR} stands for secrets.")]


@app.command("preview")
def preview(file: RuleFile, json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Ask the endpoint for one page: records, key, types and paging. Nothing is stored.

    Example: `churnguard rules preview customers.yaml`
    """
    from churnguard_pipelines.cli.files import read_rule_file
    from churnguard_pipelines.syncing.rules import preview_rule

    with opened_store() as store:
        seen = preview_rule(store, read_rule_file(file).rule)
    typer.echo(as_json(seen)) if json else _print(seen)


@app.command("add")
def add(
    file: RuleFile,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the rule of the same id.")] = False,
    check: Annotated[bool, typer.Option(help="Ask the endpoint for a page before storing anything.")] = True,
) -> None:
    """Store a rule; it is read on its schedule from then on.

    Example file::

        organization_id: acme
        rule_id: customer_api_sync
        name: Customers
        endpoint_url: https://api.example.com/customers
        data_path: customers
        key: id
        sync_frequency: 1800
        field_mappings: {email: email, plan.tier: tier, created_at: "joined_at:timestamptz"}
        authentication: {credential_type: bearer, access_token: "${CUSTOMER_API_TOKEN}"}

    Example: `CUSTOMER_API_TOKEN=… churnguard rules add customers.yaml`
    """
    from churnguard_pipelines.cli.files import read_rule_file
    from churnguard_pipelines.errors import NotFound
    from churnguard_pipelines.store.control.rules import RULES
    from churnguard_pipelines.syncing.rules import preview_rule

    described = read_rule_file(file)
    rule = described.rule
    with opened_store() as store:
        if check:
            _print(preview_rule(store, rule))
        try:
            there = replace and bool(RULES.get(store, rule.rule_id, rule.organization_id))
        except NotFound:
            there = False
        if there:
            changes = rule.model_dump(exclude={"rule_id", "organization_id", "configured_by"})
            RULES.change(store, rule.rule_id, changes, actor=ACTOR)
        else:
            RULES.add(store, rule, actor=ACTOR, organization=described.organization)
    out.print(
        f"[green]✓[/green] {rule.rule_id} is stored and will be read every {rule.sync_frequency} s while "
        f"`churnguard up` runs. Now: [bold]churnguard rules run {rule.rule_id}[/bold]"
    )


@app.command("list")
def list_() -> None:
    """List the rules of every organization."""
    from churnguard_pipelines.store.control.integrations import get_integration
    from churnguard_pipelines.store.control.rules import RULES
    from churnguard_pipelines.store.ingest.ledger import latest_sync

    table = Table("rule", "organization", "endpoint", "status", "every", "last sync", box=None, pad_edge=False)
    with opened_store() as store:
        rules = RULES.list(store)
        for each in rules:
            rule = each.configuration
            last = latest_sync(store, rule.rule_id)
            table.add_row(
                rule.rule_id,
                rule.organization_id,
                shown(str(rule.endpoint_url.host)),
                get_integration(store, rule.rule_id).status,
                f"{rule.sync_frequency} s",
                f"{last.status} {last.started_at:%Y-%m-%d %H:%M:%S %Z}" if last else "never",
            )
    out.print(
        table if rules else "No rules yet. Add one: [bold]churnguard rules add FILE.yaml[/bold] (see its --help)."
    )


@app.command("run")
def run(
    rule_id: RuleId,
    mode: Annotated[
        DataSyncMode | None, typer.Option(help="full re-reads everything and finds what was deleted.")
    ] = None,
) -> None:
    """Read a rule now, with live progress. Exit code 1 if it failed.

    Examples: `churnguard rules run customer_api_sync`, `churnguard rules run customer_api_sync --mode full`
    """
    sync(rule_id, mode, None)


@app.command("remove")
def remove(
    rule_id: RuleId,
    purge: Annotated[bool, typer.Option("--purge", help="Delete its rows in the warehouse too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a rule with its secrets and checkpoint. Its rows stay unless --purge."""
    integrations.remove(rule_id, purge, yes)


@app.command("pause")
def pause(rule_id: RuleId) -> None:
    """Read the rule no more until it is resumed."""
    integrations.pause(rule_id)


@app.command("resume")
def resume(rule_id: RuleId) -> None:
    """Read the rule on its schedule again."""
    integrations.resume(rule_id)


def _print(seen: Preview) -> None:
    from churnguard_pipelines.engine import exact_json

    found = " (found)" if seen.key_detected else ""
    key = seen.key if isinstance(seen.key, str) else ", ".join(seen.key or ())
    out.print(f"[green]✓[/green] {seen.count:,} records on the first page")
    out.print(f"key: {escape(key) + found if key else '[red]none found[/red]: name one in `key`'}")
    out.print(f"pages: {escape(seen.paging)}{' (found)' if seen.paging_detected else ''}")
    table = Table("field", "type", "in", box=None, pad_edge=False)
    for each in seen.fields:
        table.add_row(shown(each.path), each.type, f"{each.of:,}")
    out.print(table)
    if seen.lists:
        out.print(f"lists that can be tables, in `children`: {', '.join(map(shown, seen.lists))}")
    for record in seen.records:
        out.print(escape(on_one_line(exact_json.dumps(record).decode(), 300)))
