"""The daemon itself, run by twistd as a user would."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from ariproxy.sandbox.processes import twistd
from tests.integration.services.ports import HOST, free_port
from tests.integration.services.processes import Server

CHECKOUT = Path(__file__).resolve().parents[3]


class Proxy(Server):
    """``twistd -n ari-proxy``; it is ready when ``/health/ready`` says so.

    :ivar config: its ``service.conf``.
    """

    name = "ari-proxy"
    # Finishing commands, publishing and leaving the group each have a limit.
    end_limit = 40.0

    def __init__(self, settings: str) -> None:
        """Write the configuration of a daemon that has not started yet.

        :param settings: HOCON for the block ``service``, all but ``httpport``.
        """
        super().__init__(free_port())
        self.config = self.folder / "service.conf"
        self.config.write_text(
            f"service {{\n"
            f"httpport = {self.port}\n"
            f'http.interface = "{HOST}"\n'
            f"{settings}\n}}\n",
            encoding="utf-8",
        )

    def command(self) -> list[str]:
        return [
            *("env", f"PYTHONPATH={CHECKOUT}", *twistd(), "-n", "--pidfile="),
            *("ari-proxy", "--config", str(self.config)),
        ]

    def is_ready(self) -> bool:
        return self.get("/health/ready")[0] == 200

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page; status 0 when there is no answer."""
        try:
            url = f"http://{HOST}:{self.port}{path}"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """The sum of all series of a metric."""
        return sum(
            float(line.rpartition(" ")[2])
            for line in self.get("/metrics")[1].splitlines()
            if line.partition(" ")[0].partition("{")[0] == name
        )
