"""The probes that a kubelet makes."""

from __future__ import annotations

import socket
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc


def passes(probe: dict[str, Any], container: dict[str, Any], address: str) -> bool:
    """``address``: the pod's."""
    seconds = probe.get("timeoutSeconds", 1)
    if http := probe.get("httpGet"):
        try:
            answer = httpx.get(f"http://{address}:{_port(http['port'], container)}{http['path']}", timeout=seconds)
        except httpx.TransportError:
            return False
        return 200 <= answer.status_code < 400
    if tcp := probe.get("tcpSocket"):
        try:
            socket.create_connection((address, _port(tcp["port"], container)), seconds).close()
        except OSError:
            return False
        return True
    with grpc.insecure_channel(f"{address}:{probe['grpc']['port']}") as channel:
        try:
            answered = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=seconds)
        except grpc.RpcError:
            return False
    return bool(answered.status == health_pb2.HealthCheckResponse.SERVING)


def _port(port: int | str, container: dict[str, Any]) -> int:
    if isinstance(port, int):
        return port
    return next(int(each["containerPort"]) for each in container["ports"] if each["name"] == port)
