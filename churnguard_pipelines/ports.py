"""TCP ports of this machine: free ones to listen on, taken ones named."""

from __future__ import annotations

import random
import socket

from churnguard_pipelines.errors import InvalidConfiguration

# Below the ports that systems give to outgoing connections (Linux from 32768, others from 49152): nobody is given
# one of ours by chance between its choice and its use.
_OURS = range(20_000, 32_000)
_chance = random.SystemRandom()  # never the same row in two processes, whatever they seed


def free_port() -> int:
    """One of the loopback's on which nobody listens."""
    while True:
        port = _chance.choice(_OURS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def listens(host: str, port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as probe:
        probe.settimeout(1)
        try:
            return probe.connect_ex((host, port)) == 0
        except OSError:  # the host has no address
            return False


def refuse_taken(host: str, port: int, variable: str) -> None:
    """Raises ``InvalidConfiguration`` for a port on which somebody listens; ``variable``: chooses another."""
    if listens(host, port):
        raise InvalidConfiguration(
            f"port {port} on {host} is in use by another program.",
            remedy=f"Stop it, or choose another port with {variable}.",
        )
