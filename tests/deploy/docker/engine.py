"""A Docker Engine of the tests' own, and what stands in for images that only a registry has."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deploy.machine import CACHE, ROOT, lack, program
from tests.waiting import wait_for

BASE = "debian:trixie-slim"
SERVERS = ("postgres:17", "redis:8", "apache/kafka:4.3.0")
_STAND_INS = Path(__file__).with_name("stand_ins")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_APT = Path("/etc/apt/apt.conf.d")
_KAFKA = ROOT / ".venv" / "kafka"
# Nothing of the host's firewall or routes is touched. Builds have the host's network; containers have networks with
# each other, and loopback ports.
_QUIET = ("--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false")
_KEPT = "8GB"  # of what builds may use again
_START_SECONDS, _STOP_SECONDS = 60.0, 60.0


class Engine:
    """A running Docker Engine. What it built is kept for the next time, outside of any clone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        plugins = folder / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(ROOT / ".venv" / "bin" / "docker-compose")
        (folder / "bin").mkdir()
        (folder / "bin" / "docker").symlink_to("/usr/bin/docker")  # Debian's own client builds with Debian's engine
        self.environment = {
            "PATH": f"{folder}/bin:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(folder),
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
            "DOCKER_CONFIG": str(folder / "config"),
            "DOCKER_BUILDKIT": "1",
        }

    def docker(self, *arguments: str, check: bool = True, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Its output is text; an assertion shows it where the command fails."""
        done = subprocess.run(
            ["docker", *arguments],
            env=self.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not check or done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done

    def build(self, tag: str, *arguments: str, seconds: float = 1800) -> None:
        self.docker("build", "--network", "host", "--tag", tag, *arguments, seconds=seconds)

    def has(self, image: str) -> bool:
        return self.docker("image", "inspect", image, check=False).returncode == 0


@contextmanager
def running() -> Iterator[Engine]:
    """Starts it, and stops it with all that runs in it. One at a time on a machine, as they share what was built."""
    daemon = program("dockerd", "docker.io")
    if os.geteuid() != 0:
        lack("a Docker Engine of the tests' own is root's to start.")
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="cg-", dir="/tmp"))  # a socket's path is short
    with (CACHE / "docker.lock").open("w") as lock, (folder / "log").open("wb") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        places = ("--data-root", f"{CACHE}/docker", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid")
        process = subprocess.Popen(
            [daemon, *places, "--host", f"unix://{folder}/docker.sock", *_QUIET],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        engine = Engine(folder)
        try:
            wait_for(lambda: _answers(engine, process, folder), _START_SECONDS)
            _remove_leftovers(engine)
            yield engine
            _remove_leftovers(engine)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


def stand_in_for_debian(engine: Engine) -> None:
    """The distribution itself, from its archive, under the name of the image that the project begins with; with what
    this machine needs to reach archives: whom it trusts, and how apt has been told to ask."""
    if engine.has(BASE):
        return
    program("mmdebstrap", "mmdebstrap")
    lean = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        (folder / "apt").mkdir()
        configured = [path for path in _APT.iterdir() if path.read_text().startswith("Acquire::")]
        for path in configured:
            shutil.copy(path, folder / "apt")
        for path in (_CERTIFICATES, _STAND_INS / "debian.Dockerfile"):
            shutil.copy(path, folder)
        made = folder / "debian.tar"
        options = [f"--aptopt={path}" for path in configured]
        _run("mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", *lean, *options, "trixie", made)
        engine.docker("import", str(made), "debian:bootstrapped", seconds=300)
        made.unlink()
        engine.build(BASE, "--file", str(folder / "debian.Dockerfile"), str(folder))


def stand_ins_for_servers(engine: Engine) -> None:
    """PostgreSQL, Redis and Kafka as Debian and Maven have them, with the paths, users and variables of the official
    images that compose.yaml uses. What these do at their start beyond that is not tested here."""
    if not _KAFKA.exists():
        lack("Kafka's jars are not there: make servers")
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        shutil.copytree(_STAND_INS, folder, dirs_exist_ok=True)
        shutil.copytree(_KAFKA, folder / "kafka")
        for image in SERVERS:
            target = image.split(":")[0].split("/")[-1]
            engine.build(image, "--target", target, "--file", str(folder / "servers.Dockerfile"), str(folder))


def _answers(engine: Engine, process: subprocess.Popen[bytes], folder: Path) -> bool:
    if process.poll() is not None:
        lack(f"dockerd does not start here: {(folder / 'log').read_text().strip().splitlines()[-1]}")
    return engine.docker("info", check=False).returncode == 0


def _remove_leftovers(engine: Engine) -> None:
    """Of a test that was killed, or of these; never what was built and is still named."""
    if containers := engine.docker("ps", "--all", "--quiet").stdout.split():
        engine.docker("rm", "--force", "--volumes", *containers, seconds=300)
    for kind in ("network", "volume", "image"):
        engine.docker(kind, "prune", "--force", seconds=300)
    engine.docker("builder", "prune", "--force", "--keep-storage", _KEPT, seconds=300)


def _run(program: str, *arguments: str | Path) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, f"{program}:\n{done.stdout}{done.stderr}"
