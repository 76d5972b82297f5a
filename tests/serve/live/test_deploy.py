"""The container file and the systemd unit: their syntax, and the server by their command lines."""

import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unrolled.serve.client import Client

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "serve"


def unit_command() -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.*)$", (FOLDER / "unrolled.service").read_text(), re.MULTILINE)
    return shlex.split(line)


def container_command() -> list[str]:
    text = (FOLDER / "Containerfile").read_text()
    return [part for name in ("ENTRYPOINT", "CMD") for part in json.loads(re.findall(rf"^{name} (.*)$", text, re.M)[0])]


def here(command: list[str], run: Path, tmp_path: Path) -> list[str]:
    """The command with the paths of this test, at a free port."""
    key = tmp_path / "state-key"
    key.write_text("5a" * 32 + "\n")
    key.chmod(0o600)
    (tmp_path / "api-keys").write_text("0123456789abcdef01\n")
    paths = {"state-key": str(key), "api-keys": str(tmp_path / "api-keys"), "mine": str(run)}
    found = [paths.get(Path(part).name, part) if part.startswith("/") else part for part in command[1:]]
    if "--port" in found:
        found[found.index("--port") + 1] = "0"
    else:
        found += ["--port", "0"]
    return [sys.executable, "-m", "unrolled", *found, "--json"]


@pytest.mark.slow
@pytest.mark.parametrize("command", [unit_command(), container_command()], ids=["systemd", "container"])
def test_the_server_starts_by_their_command_lines(command: list[str], run: Path, tmp_path: Path) -> None:
    assert Path(command[0]).name == "unrolled"
    env = {**os.environ, "UNROLLED_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(here(command, run, tmp_path), stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 60)[0]
            port = json.loads(process.stdout.readline())["address"].rpartition(":")[2]
            client = Client(f"http://127.0.0.1:{port}", api_key="0123456789abcdef01")
            state = client.complete("the ", max_tokens=3).state
            assert state is not None
            assert client.complete(state=state, max_tokens=3).text
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_is_one(tmp_path: Path) -> None:
    text = (FOLDER / "unrolled.service").read_text()
    (tmp_path / "unrolled.service").write_text(text.replace("/opt/unrolled/bin/unrolled", "/bin/true"))
    call = ["systemd-analyze", "verify", str(tmp_path / "unrolled.service")]
    found = subprocess.run(call, capture_output=True, text=True, check=False)
    assert "unrolled.service" not in found.stderr, found.stderr
    wait, drain = re.search(r"TimeoutStopSec=(\d+)", text), re.search(r"--drain (\d+)", text)
    assert wait is not None
    assert drain is not None
    assert int(wait[1]) > int(drain[1]) + 5, "the texts have the time to end"


def test_the_container_file_is_one() -> None:
    """Every line is an instruction that there is, or goes on from one; torch is capped as the package caps it."""
    lines = (FOLDER / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    known = {"FROM", "RUN", "COPY", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}
    for line in lines:
        assert not line or line.startswith("#") or line.split()[0] in known, line
    pinned = re.findall(r'"(torch[^"]*)"', (FOLDER.parents[1] / "pyproject.toml").read_text())
    assert f'"{pinned[0]}"' in "\n".join(lines)
