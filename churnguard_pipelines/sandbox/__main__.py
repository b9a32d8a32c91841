"""`python -m churnguard_pipelines.sandbox --port 12111 --state FOLDER`: simulated providers for the demo."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from churnguard_pipelines.sandbox.product import Product
from churnguard_pipelines.sandbox.salesforce.api import Salesforce
from churnguard_pipelines.sandbox.serve import listen, run
from churnguard_pipelines.sandbox.server import Application
from churnguard_pipelines.sandbox.world import KEY, World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m churnguard_pipelines.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=12111, help="port (default %(default)s; 0 picks one)")
    parser.add_argument("--state", type=Path, required=True, help="folder that keeps the simulated businesses")
    parser.add_argument("--freeze", action="store_true", help="nothing new happens; the clock stands still")
    parser.add_argument("--scale", type=float, help="size of the businesses (default 1.0)")
    parser.add_argument("--seed", type=int, help="which history (default 1)")
    parser.add_argument("--bulk", type=int, default=0, help="customers of the account `bulk`")
    parser.add_argument("--rate", type=float, default=100, help="requests a second per key, 0 for any number")
    parser.add_argument("--gzip", action="store_true", help="compress answers for clients that accept it")
    parser.add_argument("--pubsub", type=int, default=0, help="port of Salesforce's Pub/Sub API (default: none)")
    options = parser.parse_args()
    try:
        listener = listen(options.port, options.host)
    except OSError as problem:
        print(f"sandbox: port {options.port} on {options.host}: {problem.strerror}. Try --port", file=sys.stderr)  # noqa: T201
        return 1
    live = not options.freeze
    try:
        world = World(options.state, seed=options.seed, scale=options.scale, alive=live, bulk=options.bulk)
    except (ValueError, OSError) as problem:
        print(f"sandbox: {problem}", file=sys.stderr)  # noqa: T201
        return 1
    keys = ", ".join(KEY + name for name in world.businesses)
    print(f"sandbox: http://{options.host}:{listener.getsockname()[1]}/v1 with keys {keys}", flush=True)  # noqa: T201
    with contextlib.ExitStack() as stack:
        if product_database := os.environ.get("SANDBOX_PRODUCT_DATABASE"):  # PostgreSQL; with a password
            product = Product(world, "acme", product_database)
            stack.callback(product.close)
            if live:
                product.live()
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        usage_stream = os.environ.get("SANDBOX_USAGE_STREAM")  # Redis' URL; with a password
        application = Application(world, rate=options.rate or None, compress=options.gzip, usage_stream=usage_stream)
        stack.callback(application.close)
        salesforce = application.providers["salesforce"]
        if options.pubsub and isinstance(salesforce, Salesforce):
            print(f"sandbox: Pub/Sub API at {salesforce.pubsub(options.pubsub).target}", flush=True)  # noqa: T201
        run(application, listener, live)
    world.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
