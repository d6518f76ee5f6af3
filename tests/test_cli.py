"""The console command ``ari-proxy``."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ariproxy import __version__
from ariproxy.cli import main

SAMPLE = str(Path(__file__).parents[1] / "etc" / "ari-proxy" / "service.conf")


class CommandTests(SynchronousTestCase):
    """Each subcommand, by its exit status and what it prints."""

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        """Status, output and errors."""
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = main(arguments)
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
        return status, out.getvalue(), err.getvalue()

    def test_version(self) -> None:
        """The version."""
        status, out, _ = self.run_command("--version")
        self.assertEqual((status, out), (0, f"ari-proxy {__version__}\n"))

    def test_help(self) -> None:
        """Every subcommand, and how the daemon is started."""
        status, out, _ = self.run_command("--help")
        self.assertEqual(status, 0)
        for word in ("check", "demo", "twistd ari-proxy --config FILE"):
            self.assertIn(word, " ".join(out.split()))

    def test_nothing(self) -> None:
        """Without a subcommand: how to use it, and status 2."""
        status, _, err = self.run_command()
        self.assertEqual(status, 2)
        self.assertIn("usage: ari-proxy", err)

    def test_check(self) -> None:
        """A configuration without fault."""
        status, out, err = self.run_command("check", SAMPLE)
        self.assertEqual((status, out, err), (0, f"{SAMPLE}: no fault found\n", ""))

    def test_check_finds(self) -> None:
        """Each fault has its line, and the status is 1."""
        status, out, err = self.run_command(
            "check", SAMPLE, "--set", "service.httpport=x", "--set", "service.nix=1"
        )
        self.assertEqual((status, out), (1, ""))
        lines = err.splitlines()
        self.assertEqual(len(lines), 2)
        self.assertTrue(all(line.startswith("ari-proxy: ") for line in lines))

    def test_check_without_file(self) -> None:
        """A file that is not there is a fault as any other."""
        status, _, err = self.run_command("check", "no-such-file.conf")
        self.assertEqual((status, len(err.splitlines())), (1, 1))

    def test_check_shows_no_secret(self) -> None:
        """Also where a password stands in the wrong place."""
        status, out, err = self.run_command(
            "check", SAMPLE, "--set", "service.asterisk.passwort=s3cret"
        )
        self.assertEqual(status, 1)
        self.assertNotIn("s3cret", out + err)

    def test_demo_help(self) -> None:
        """The demonstration has its options."""
        status, out, _ = self.run_command("demo", "--help")
        self.assertEqual(status, 0)
        for option in ("--calls", "--rate", "--stay"):
            self.assertIn(option, out)
