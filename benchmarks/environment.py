"""The interpreter that has the libraries this one is compared with, in their newest versions."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

ENVIRONMENT = Path(__file__).parent.parent / ".venv-peers"


def peers_python(packages: Iterable[str]) -> str:
    """The interpreter of an environment of their own, with the newest versions of these packages."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
        (ENVIRONMENT / ".gitignore").write_text("*\n")
    install = [str(python), "-m", "pip", "install", "--quiet", "--upgrade", *sorted(set(packages))]
    subprocess.run(install, check=True, stdout=sys.stderr)
    return str(python)


def peers_packages(packages: Iterable[str]) -> None:
    """Let this process import these packages too, from that environment; what it has itself comes first."""
    python = peers_python(packages)
    told = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    sys.path.append(told.strip())


def versions(python: str, packages: Iterable[str]) -> dict[str, str]:
    """Of packages that an interpreter has, each as pip was asked for it."""
    names = sorted(set(packages))
    script = "import importlib.metadata, json, sys; print(json.dumps([*map(importlib.metadata.version, sys.argv[1:])]))"
    command = [python, "-c", script, *(name.partition("[")[0] for name in names)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(zip(names, json.loads(told), strict=True))
