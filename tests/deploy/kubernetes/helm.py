"""`python -m tests.deploy.kubernetes.helm install|upgrade RELEASE CHART …`: what the `helm` command does, by Helm's own
library, for a machine that has no such command."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="helm")
    parser.add_argument("action", choices=["install", "upgrade"])
    parser.add_argument("release")
    parser.add_argument("chart")
    parser.add_argument("--namespace", "-n")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--wait", action="store_true")
    parser.add_argument("--timeout", default="5m")
    given = parser.parse_args(arguments)
    values: dict[str, Any] = {}
    for each in given.set:
        values |= helm.parse_set_string(each)
    with helm.Config(namespace=given.namespace or _namespace()) as config:
        act = config.install if given.action == "install" else config.upgrade
        wait = "watcher" if given.wait else None
        seconds = int(given.timeout[:-1]) * {"s": 1, "m": 60}[given.timeout[-1]]
        try:
            made = act(given.chart, given.release, values, wait=wait, timeout=seconds)
        except helm.HelmError as error:
            sys.stderr.write(f"Error: {error}\n")
            return 1
    sys.stdout.write(f"{made['status']}\n{made.get('notes', '')}\n")
    return 0


def _namespace() -> str:
    """The context's."""
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    return str(config["contexts"][0]["context"]["namespace"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
