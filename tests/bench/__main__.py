"""`python -m tests.bench [--only AREA]`: run the benchmarks on a private PostgreSQL, print, write bench.json."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography.fernet import Fernet

from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.postgres.database import Store
from tests.bench import crm, databases, pages, saas, scale, streams, stripe, warehouse
from tests.bench.gateway import rows as gateway
from tests.bench.harness import Row, report, without_the_tests_own_cost

AREAS: dict[str, Callable[[Store], Iterable[Row]]] = {
    "warehouse": warehouse.run,
    "stripe": stripe.run,
    "databases": databases.run,
    "crm": crm.run,
    "saas": saas.run,
    "gateway": gateway.run,
    "scale": scale.run,
    "pages": pages.run,
    "streams": streams.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--only", choices=sorted(AREAS))
    only = parser.parse_args().only
    without_the_tests_own_cost()
    target = load_settings().home / "bench.json"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="churnguard-bench-") as folder:
        os.environ["CHURNGUARD_HOME"] = folder
        os.environ["INTEGRATION_ENCRYPTION_KEY"] = Fernet.generate_key().decode()
        Path(folder).chmod(0o755)
        store = Store.open(load_settings())
        try:
            for area in [only] if only else sorted(AREAS):
                rows.extend(AREAS[area](store))
        finally:  # what was measured before something failed is worth knowing
            store.close()
            report(rows, target)


if __name__ == "__main__":
    main()
