"""The log as collectors of logs read it: a JSON object a line, whoever's words are in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.settings import load_settings
from tests.attacks.workers.test_forge_a_log_line import FORGED, TEXTS

PROGRAM = """
import logging, sys
from pathlib import Path
from churnguard_pipelines.engine.fair_threads import FairThreads, in_thread
from churnguard_pipelines.settings import load_settings, start_logging
from churnguard_pipelines.telemetry import logs
start_logging(load_settings())
text = Path(sys.argv[1]).read_text("utf-8", "surrogatepass")
log = logging.getLogger("churnguard_pipelines.test")
threads = FairThreads("helpers", 2, 1)
with logs.about(run_id="run-1"), logs.about(organization="acme", integration="acme-crm"):
    log.info("%s", text)
    in_thread("lane", lambda: log.info("in a thread of its own")).result()
    threads.submit("acme", lambda: log.info("in a pool")).result()
try:
    raise ValueError(text)
except ValueError:
    log.exception("it broke")
logging.getLogger("uvicorn.error").error("of the web server")
"""


@pytest.mark.parametrize("text", [f"x\n{FORGED}", TEXTS[-1]], ids=["a line of one's own", "a million characters"])
def test_a_message_is_one_object_on_one_line_with_the_ids_of_what_it_is_about(tmp_path: Path, text: str) -> None:
    (tmp_path / "text").write_text(text)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "text"],
        env={"INTEGRATION_ENGINE_LOG_FORMAT": "JSON", "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path, capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert ended.stderr == ""
    told, thread, pool, broke, served = map(json.loads, ended.stdout.splitlines())
    assert told.keys() == {"time", "level", "logger", "message", "organization", "integration", "run_id"}
    ids = {"organization": "acme", "integration": "acme-crm", "run_id": "run-1"}
    assert told.items() >= {"level": "INFO", "logger": "churnguard_pipelines.test", **ids}.items()
    assert "\n" not in told["message"]
    assert thread.items() >= ids.items()
    assert pool.items() >= ids.items()
    assert "ValueError" in broke["exception"]
    assert "organization" not in broke
    assert served["message"] == "of the web server"


def test_an_unknown_format_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTEGRATION_ENGINE_LOG_FORMAT", "xml")
    with pytest.raises(InvalidConfiguration, match="INTEGRATION_ENGINE_LOG_FORMAT input should be 'text' or 'json'"):
        load_settings()
