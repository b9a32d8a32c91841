"""The demo's own server for streams: there while the demo is, on the loopback, with what it had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis

from churnguard_pipelines.cli.demo.broker import Broker, server_program
from churnguard_pipelines.ports import listens
from tests.waiting import wait_for

START = """
import sys, time
from pathlib import Path
from churnguard_pipelines.cli.demo.broker import Broker, server_program
print(Broker(Path(sys.argv[1]), server_program()).start(), flush=True)
time.sleep(600)
"""


def servers(started_by: int | None = None) -> list[psutil.Process]:
    return [each for each in psutil.Process(started_by).children() if "-server" in each.name()]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    program = server_program()
    assert program is not None
    made = Broker(tmp_path, program)
    yield made
    made.stop()


def test_what_it_has_is_there_again_at_the_same_address(broker: Broker, tmp_path: Path) -> None:
    address = broker.start()
    with redis.Redis.from_url(address) as server:
        server.xadd("events", {"data": "{}"}, id="7-1")
    broker.stop()
    assert broker.start() == address
    with redis.Redis.from_url(address) as server:
        assert server.xlen("events") == 1
    assert not [file for file in (tmp_path / "broker").glob("*.json") if file.stat().st_mode & 0o077]


def test_only_who_knows_the_password_is_let_in(broker: Broker) -> None:
    port = urlsplit(broker.start()).port
    assert port is not None
    with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    [started] = servers()
    assert not [word for word in started.cmdline() if "requirepass" in word or len(word) == 32]


def test_another_program_on_its_port_is_left_alone(broker: Broker, tmp_path: Path) -> None:
    first = broker.start()
    broker.stop()
    port = urlsplit(first).port
    assert port is not None
    with subprocess.Popen([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]) as other:
        try:
            wait_for(lambda: listens("127.0.0.1", port))
            assert broker.start() != first
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_it_ends_with_a_demo_that_was_killed(tmp_path: Path) -> None:
    demo = subprocess.Popen([sys.executable, "-c", START, str(tmp_path)], stdout=subprocess.PIPE)
    assert demo.stdout is not None
    with demo.stdout as output:
        address = output.readline().decode().strip()
    [server] = servers(demo.pid)
    os.kill(demo.pid, signal.SIGKILL)
    demo.wait()
    wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    with redis.Redis.from_url(address) as gone, pytest.raises(redis.ConnectionError):
        gone.ping()


def test_one_that_was_left_behind_is_ended_before_its_data_are_used_again(broker: Broker, tmp_path: Path) -> None:
    """Where nothing tells it of its parent's end."""
    address = broker.start()
    [left] = servers()
    program = server_program()
    assert program is not None
    successor = Broker(tmp_path, program)
    try:
        assert successor.start() == address
        assert left.wait(timeout=60) is not None
    finally:
        successor.stop()
