"""What the benchmarks share: the surroundings of a run, and the interpreter that has the other libraries."""

from __future__ import annotations

import datetime
import json
import os
import platform
import ssl
import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".venv-peers"


def surroundings() -> dict[str, str]:
    """What the figures depend on."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("model name", "Model"))]
    mosquitto = subprocess.run(["mosquitto", "-h"], capture_output=True, text=True, check=False).stdout
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{cpu[-1].partition(':')[2].strip() if cpu else platform.machine()}, {os.cpu_count()} cores",
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION.split()[1],
        "mqtt-token-client": version("mqtt-token-client"),
        "paho-mqtt": version("paho-mqtt"),
        "mosquitto": mosquitto.split()[2],
    }


def peers_python(packages: Iterable[str]) -> str:
    """The interpreter of an environment of its own, with the newest versions of these packages."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
        (ENVIRONMENT / ".gitignore").write_text("*\n")
    install = [str(python), "-m", "pip", "install", "--quiet", "--upgrade", *sorted(set(packages))]
    subprocess.run(install, check=True, stdout=sys.stderr)
    return str(python)


def peers_packages(packages: Iterable[str]) -> None:
    """Let this process import these packages from that environment too; its own packages come first."""
    python = peers_python(packages)
    answer = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    sys.path.append(answer.strip())


def versions(python: str, packages: Iterable[str]) -> dict[str, str]:
    """The versions of packages in the environment of an interpreter; the keys are the names as pip was given them."""
    names = sorted(set(packages))
    script = "import importlib.metadata, json, sys; print(json.dumps([*map(importlib.metadata.version, sys.argv[1:])]))"
    command = [python, "-c", script, *(name.partition("[")[0] for name in names)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(zip(names, json.loads(answer), strict=True))
