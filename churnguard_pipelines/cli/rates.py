"""`churnguard rates`: the exchange rates that churn facts are stated with."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from churnguard_pipelines.cli.terminal import opened_store, out
from churnguard_pipelines.errors import InvalidConfiguration

app = typer.Typer(help="Exchange rates used for churn facts.", no_args_is_help=True)


@app.command("set")
def set_rate(
    day: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="From this day on, until a later rate.")],
    currency: Annotated[str, typer.Argument(help="ISO 4217, e.g. ars.")],
    per_euro: Annotated[str, typer.Argument(help="Units of the currency for one euro.")],
) -> None:
    """Add a rate that the European Central Bank does not publish, or overrule one that it does.

    Example: `churnguard rates set 2026-01-31 ars 1712.5`
    """
    from churnguard_pipelines.analytics.exchange import set_operator_rate

    try:
        rate = Decimal(per_euro)
    except InvalidOperation:
        raise InvalidConfiguration(f"{per_euro!r} is not a number.", remedy="Write e.g. 1712.5.") from None
    with opened_store() as store:
        set_operator_rate(store, day.date(), currency.lower(), rate)
    out.print(f"1 eur = {rate} {currency.lower()} from {day:%Y-%m-%d} on.")


@app.command("import")
def import_rates(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="A file of the bank's, or its https:// address.")],
) -> None:
    """Bring the European Central Bank's published rates: its CSV, zipped CSV or XML. To be done about once a week.

    Example: `churnguard rates import https://www.ecb.europa.eu/stats/eurofxref/eurofxref-hist.zip`
    """
    from churnguard_pipelines.analytics.exchange import import_published_rates
    from churnguard_pipelines.analytics.published_rates import MOST_BYTES, download

    if source.lower().startswith(("https://", "http://")):
        content = download(source)
    else:
        try:
            with Path(source).open("rb") as opened:
                content = opened.read(MOST_BYTES + 1)
        except OSError as error:
            raise InvalidConfiguration(f"{source} cannot be read: {error.strerror}.") from None
    with opened_store() as store:
        count, latest = import_published_rates(store, content, name=source)
    out.print(f"{count:,} rates until {latest} from {escape(source)}.")
