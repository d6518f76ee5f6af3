"""The reference implementation of HOCON, ``com.typesafe:config``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.integration.services.processes import program, services_folder

VERSION = "1.4.3"
_PROGRAM = Path(__file__).with_name("Reference.java")
_JAVA = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


def jars() -> Path:
    """Return the folder with the jar."""
    return services_folder() / f"typesafe-config-{VERSION}"


def missing() -> str | None:
    """Tell what is not there and how to mend it."""
    # A program is started from its source, and a Java without compiler cannot.
    if not program("javac"):
        return "there is no javac: install the package default-jdk-headless"
    if not jars().exists():
        return f"there is no {jars()}: run python -m tests.integration.install"
    return None


class Reference:
    """One Java process that reads file after file; a context manager."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Start the process.

        :param environ: all the environment that substitutions find.
        """
        java = program("java") or "java"
        self._process = subprocess.Popen(
            [java, *_JAVA, "-cp", f"{jars()}/*", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=environ,
        )

    def read(self, file: Path) -> dict[str, Any] | str:
        """Return what the file holds, or as a text why it is refused.

        In the one case it is a nested dict, whose leaves are texts, lists and None.
        """
        assert self._process.stdin and self._process.stdout
        print(file, file=self._process.stdin, flush=True)
        answer: dict[str, Any] | str = json.loads(self._process.stdout.readline())
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.communicate()
