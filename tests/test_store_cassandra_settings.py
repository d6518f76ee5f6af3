"""Tests for the Cassandra store's settings and the tool that makes its table."""

from __future__ import annotations

import ssl
import subprocess
from argparse import ArgumentParser
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ariproxy.errors import ConfigError
from ariproxy.store.cassandra_schema import add_arguments, run, schema
from ariproxy.store.cassandra_settings import CassandraSettings, cassandra_settings

ORIGINAL = Path(__file__).parent / "configs" / "original.conf"
SAMPLE = {
    "basic": {
        "contact-points": ["localhost:9042", "[2001:db8::1]:9043"],
        "session-keyspace": "retel",
        "load-balancing-policy": {"local-datacenter": "dc1"},
    },
    "advanced": {
        "reconnection-policy": {
            "class": "ExponentialReconnectionPolicy",
            "base-delay": "1 second",
        },
        "auth-provider": {
            "class": "PlainTextAuthProvider",
            "username": "cassandra",
            "password": "s3cret",
        },
    },
}


class _SettingsTests(SynchronousTestCase):
    """Reads blocks with one thing changed."""

    def read(self, **changes: Any) -> CassandraSettings:
        """The settings of a minimal block; ``a__b = value`` sets ``a.b``."""
        block: dict[str, Any] = {"basic": {"session-keyspace": "retel"}}
        for name, value in changes.items():
            *path, last = name.replace("_x_", "-").split("__")
            here = block
            for part in path:
                here = here.setdefault(part, {})
            here[last] = value
        return cassandra_settings(block)

    def problem(self, **changes: Any) -> str:
        """The one problem of such a block."""
        with self.assertRaises(ConfigError) as raised:
            self.read(**changes)
        [problem] = raised.exception.problems
        self.assertTrue(problem.startswith("datastax-java-driver."), problem)
        self.assertNotIn("s3cret", problem)
        return problem


class CassandraSettingsTests(_SettingsTests):
    """From the Java driver's block to settings."""

    def test_sample(self) -> None:
        """The original's sample file is read, and what is ignored is named."""
        found = cassandra_settings(SAMPLE)
        points = (("localhost", 9042), ("2001:db8::1", 9043))
        self.assertEqual(found.contact_points, points)
        self.assertEqual((found.keyspace, found.datacentre), ("retel", "dc1"))
        self.assertEqual(found.username, "cassandra")
        assert found.password
        self.assertEqual(found.password.reveal(), "s3cret")
        self.assertNotIn("s3cret", repr(found))
        self.assertEqual(
            found.ignored,
            (
                "datastax-java-driver.advanced.reconnection-policy.class",
                "datastax-java-driver.advanced.reconnection-policy.base-delay",
            ),
        )

    def test_defaults(self) -> None:
        """What is not said."""
        found = self.read()
        self.assertEqual(found.contact_points, (("127.0.0.1", 9042),))
        self.assertEqual((found.timeout, found.connect_timeout), (1.0, 2.0))
        self.assertEqual(found.consistency, "LOCAL_ONE")
        self.assertEqual((found.username, found.password, found.tls), (None,) * 3)
        self.assertEqual((found.datacentre, found.ignored), ("", ()))

    def test_values(self) -> None:
        """Durations have units, and the consistency a name."""
        found = self.read(
            basic__request={"timeout": "500 milliseconds", "consistency": "QUORUM"},
            advanced__connection={"connect-timeout": "3 s"},
        )
        self.assertEqual((found.timeout, found.connect_timeout), (0.5, 3.0))
        self.assertEqual(found.consistency, "QUORUM")

    def test_keyspace(self) -> None:
        """Letters are small unless the name is quoted, as in CQL."""
        for written, name in (("Retel", "retel"), ('"Retel"', "Retel")):
            block = {"basic": {"session-keyspace": written}}
            self.assertEqual(cassandra_settings(block).keyspace, name)

    def test_off_without_class(self) -> None:
        """As in the Java driver, log-in and TLS are off without their class."""
        found = self.read(
            advanced__auth_x_provider={"username": "ari", "password": "s3cret"},
            advanced__ssl_x_engine_x_factory={"truststore-path": "/nowhere"},
        )
        self.assertEqual((found.username, found.tls), (None, None))
        self.assertEqual(len(found.ignored), 3)

    def test_with_package(self) -> None:
        """Classes may be given with their package."""
        found = self.read(
            advanced__auth_x_provider={
                "class": "com.datastax.oss.driver.internal.core.auth."
                "PlainTextAuthProvider",
                "username": "ari",
                "password": "s3cret",
            }
        )
        self.assertEqual(found.username, "ari")

    def test_problems(self) -> None:
        """Each problem names the key, and what is allowed."""
        for name, value, words in (
            ("basic__contact-points", ["localhost"], "found 'localhost'; allowed: a "),
            ("basic__contact-points", "localhost:1", "allowed: a list of texts"),
            ("basic__session-keyspace", "a.b", "up to 48 letters, digits and '_'"),
            ("basic__session-keyspace", None, "missing, required with the store"),
            ("basic__request__timeout", "soon", "allowed: a duration like 30s"),
            ("basic__request__consistency", "local", "allowed: ANY, ONE, TWO"),
            ("basic__cloud__secure-connect-bundle", "x", "basic.contact-points"),
            ("advanced__auth-provider__class", "Kerberos", "PlainTextAuthProvider"),
            ("advanced__ssl-engine-factory__class", "Own", "DefaultSslEngineFactory"),
        ):
            problem = self.problem(**{name: value})
            self.assertIn(name.replace("__", "."), problem)
            self.assertIn(words, problem)

    def test_missing_password(self) -> None:
        """A log-in wants both, and the user is not shown as the password."""
        provider = {"class": "PlainTextAuthProvider", "username": "ari"}
        problem = self.problem(**{"advanced__auth-provider": provider})
        self.assertIn("auth-provider.password: missing", problem)
        provider = {**provider, "password": ["s3cret"]}
        problem = self.problem(**{"advanced__auth-provider": provider})
        self.assertIn("auth-provider.password: found something else", problem)

    def test_all_problems(self) -> None:
        """All problems are told at once."""
        with self.assertRaises(ConfigError) as raised:
            cassandra_settings({"basic": {"request": {"timeout": "x"}}})
        self.assertEqual(len(raised.exception.problems), 2)


class TlsTests(_SettingsTests):
    """Trust and certificates."""

    def tls(self, **files: str) -> dict[str, Any]:
        block = {name.replace("_", "-"): value for name, value in files.items()}
        block["class"] = "DefaultSslEngineFactory"
        return {"advanced__ssl-engine-factory": block}

    def certificate(self) -> tuple[str, str]:
        """A certificate, and a file of it and its key under a password."""
        certificate, both = self.mktemp(), self.mktemp()
        key = both + ".key"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-subj", "/CN=x"),
                *("-passout", "pass:s3cret", "-keyout", key, "-out", certificate),
            ],
            check=True,
            capture_output=True,
        )
        Path(both).write_text(Path(key).read_text() + Path(certificate).read_text())
        return certificate, both

    def test_system_cas(self) -> None:
        """Without a truststore the system's CAs count, and names are checked."""
        context = self.read(**self.tls()).tls
        assert context
        self.assertTrue(context.check_hostname)
        self.assertEqual(context.verify_mode, ssl.CERT_REQUIRED)

    def test_files(self) -> None:
        """A truststore replaces the system's CAs; a keystore may have a password."""
        certificate, both = self.certificate()
        context = self.read(
            **self.tls(
                truststore_path=certificate,
                truststore_password="unused",
                keystore_path=both,
                keystore_password="s3cret",
                hostname_validation="false",
            )
        ).tls
        assert context
        self.assertFalse(context.check_hostname)
        self.assertEqual(context.verify_mode, ssl.CERT_REQUIRED)
        self.assertEqual(len(context.get_ca_certs()), 1)

    def test_keystore_password(self) -> None:
        """A missing or wrong password is told, and OpenSSL asks nobody."""
        _, both = self.certificate()
        self.assertIn("keystore-path: ", self.problem(**self.tls(keystore_path=both)))
        wrong = self.tls(keystore_path=both, keystore_password="s3cret2")
        self.assertIn("not this password", self.problem(**wrong))

    def test_java_stores(self) -> None:
        """A store of Java's is refused with the command that converts it."""
        for magic in (b"\xfe\xed\xfe\xed\0\0\0\2", b"\x30\x82\x0a\x56"):
            path = Path(self.mktemp())
            path.write_bytes(magic)
            problem = self.problem(**self.tls(truststore_path=str(path)))
            self.assertIn(f"keytool -list -rfc -keystore {path} > ca.pem", problem)
            problem = self.problem(**self.tls(keystore_path=str(path)))
            self.assertIn("-out key.pem", problem)

    def test_unreadable(self) -> None:
        """A file that is missing, or holds no certificate, is named."""
        missing = self.problem(**self.tls(truststore_path="/nowhere/ca.pem"))
        self.assertIn("/nowhere/ca.pem cannot be read: No such file", missing)
        path = Path(self.mktemp())
        path.write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
        self.assertIn(str(path), self.problem(**self.tls(truststore_path=str(path))))


class SchemaTests(SynchronousTestCase):
    """The statements, and the subcommand that prints them."""

    def test_datacentre(self) -> None:
        """With a datacentre its nodes keep the rows."""
        keyspace, table = schema("Retel", "d'c", 3)
        self.assertEqual(
            keyspace,
            'CREATE KEYSPACE IF NOT EXISTS "Retel"\n  WITH replication = '
            "{'class': 'NetworkTopologyStrategy', 'd''c': 3}",
        )
        self.assertIn('CREATE TABLE IF NOT EXISTS "Retel".retel (', table)
        self.assertIn('"key" text PRIMARY KEY', table)
        self.assertIn("default_time_to_live = 21600", table)

    def test_no_datacentre(self) -> None:
        """Without one any nodes do."""
        keyspace, _ = schema("retel", "", 1)
        self.assertIn("{'class': 'SimpleStrategy', 'replication_factor': 1}", keyspace)

    def run_tool(self, block: str, *arguments: str) -> tuple[int, str, str]:
        """Its exit status, output and errors."""
        file = Path(self.mktemp())
        file.write_text(f"{ORIGINAL.read_text()}\n{block}")
        parser = ArgumentParser()
        add_arguments(parser)
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = run(parser.parse_args([str(file), *arguments]))
            except SystemExit as end:
                status = int(end.code or 0)
        return status, out.getvalue(), err.getvalue()

    def test_printed(self) -> None:
        """Each statement ends with a semicolon."""
        block = "datastax-java-driver.basic.session-keyspace = calls"
        status, out, err = self.run_tool(block, "--replication-factor", "2")
        self.assertEqual((status, err), (0, ""))
        expected = [f"{statement};\n" for statement in schema("calls", "", 2)]
        self.assertEqual(out, "\n".join(expected) + "\n")

    def test_bad_configuration(self) -> None:
        """Without a keyspace nothing is printed but the problem."""
        status, out, err = self.run_tool("")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("ari-proxy: datastax-java-driver.basic.session-keyspace: ", err)

    def test_bad_replication(self) -> None:
        """A replication factor is a number from 1."""
        for number in ("0", "x"):
            status, _, err = self.run_tool("", "--replication-factor", number)
            self.assertEqual(status, 2)
            self.assertIn("--replication-factor", err)
