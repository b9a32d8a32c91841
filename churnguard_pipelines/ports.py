"""TCP ports of this machine: free ones to listen on, taken ones named."""

from __future__ import annotations

import errno
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


def refuse_unusable(host: str, port: int, variables: str) -> None:
    """Raises ``InvalidConfiguration`` where nothing of ours could listen. ``variables``: the beginning of the names of
    the two, ``…_HOST`` and ``…_PORT``, that choose another place."""
    elsewhere = f"choose another port, e.g. {variables}_PORT={free_port()}."
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        taken = listens(host, port)  # where a system lets several listen
    except OSError as error:
        if error.errno == errno.EACCES:
            raise InvalidConfiguration(
                f"port {port} is for root only.", remedy=f"{elsewhere[:1].upper()}{elsewhere[1:]}"
            ) from None
        if error.errno != errno.EADDRINUSE:
            raise InvalidConfiguration(
                f"{variables}_HOST={host} is no address of this machine.",
                remedy=f"Set {variables}_HOST to one that it has, e.g. 127.0.0.1.",
            ) from None
        taken = True
    if taken:
        raise InvalidConfiguration(
            f"port {port} on {host} is in use by another program.", remedy=f"Stop it, or {elsewhere}"
        )
