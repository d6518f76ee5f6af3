"""Tests for ``ariproxy.config.values``, and for what becomes of addresses."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ariproxy.config import Config, Secret, keys, load
from tests.test_config import ORIGINAL, LoadedConfig


def get(config: Config, attributes: str) -> Any:
    value: Any = config
    for name in attributes.split("."):
        value = getattr(value, name)
    return value


class KindTests(LoadedConfig):
    """What a text means for the key that it is given to."""

    def assertValues(self, key: str, attributes: str, cases: dict[str, Any]) -> None:
        for text, expected in cases.items():
            config = self.load(f"{key}={text}")
            self.assertEqual(get(config, attributes), expected, text)

    def assertRefused(self, key: str, *texts: str) -> None:
        for text in texts:
            problems = self.problems(f"{key}={text}")
            self.assertIn(f"--set: {key}: found ", problems[0])
            self.assertIn("; allowed: ", problems[0])

    def test_integer(self) -> None:
        """A whole number within its range, quoted or not."""
        self.assertValues(
            "service.httpport", "httpport", {"80": 80, '"80"': 80, "80.0": 80}
        )
        self.assertRefused(
            "service.httpport", "0", "65536", "-1", "8.5", "1e3", "\uff18", "8_0", ""
        )
        self.assertRefused("service.commands.concurrency", "0", "none", "9" * 20)

    def test_boolean(self) -> None:
        """HOCON knows three words for each."""
        self.assertValues(
            "service.redis.tls",
            "redis.tls",
            dict.fromkeys(["true", "yes", "on", '"true"', "TRUE"], True)
            | dict.fromkeys(["false", "no", "off"], False),
        )
        self.assertRefused("service.redis.tls", "1", "", "ja", "[true]")

    def test_duration(self) -> None:
        """All units of HOCON; a number alone is milliseconds."""
        self.assertValues(
            "service.commands.timeout",
            "commands.timeout",
            {
                "100": 0.1,
                "1000000us": 1.0,
                "5000000000 nanoseconds": 5.0,
                "250 millis": 0.25,
                "1.5s": 1.5,
                "10 seconds": 10.0,
                "1 minute": 60.0,
                "2h": 7200.0,
                "1 day": 86400.0,
                "1e3 ms": 1.0,
            },
        )
        self.assertRefused(
            "service.commands.timeout",
            "0s", "-1s", "10 parsecs", "S", "", "1s 2s", "1e99d", "1e999d", "infinite",
        )  # fmt: skip
        self.assertValues("service.forget-after", "forget_after", {"0": 0.0})
        self.assertRefused("service.redis.ttl", "500ms")

    def test_duration_without_end(self) -> None:
        """Akka's word for no limit."""
        self.assertValues(
            "akka.http.client.idle-timeout",
            "akka.idle_timeout",
            {"infinite": None, "inf": None, "5s": 5.0},
        )

    def test_size(self) -> None:
        """Powers of ten and of two, as HOCON spells them."""
        self.assertValues(
            "service.events.spool-size",
            "events.spool_size",
            {
                "512": 512,
                "512 B": 512,
                "1kB": 1000,
                "1K": 1024,
                "1.5MiB": 1572864,
                "2 gigabytes": 2 * 10**9,
                "1GiB": 2**30,
            },
        )
        self.assertRefused("service.events.spool-size", "0", "-1", "1XB", "", "1e400B")

    def test_names(self) -> None:
        """Names, topics and servers have their own alphabets."""
        self.assertRefused("service.name", "a b", "ä", "", "a.b")
        self.assertRefused("service.kafka.commands-topic", "a b", "..", "", "x" * 250)
        self.assertRefused(
            "service.asterisk.server", "localhost", "h:0", "h:65536", "http://h:1", ":1"
        )
        self.assertValues(
            "service.asterisk.server",
            "rest.uri",
            {"10.0.0.1:1": "http://10.0.0.1:1/ari", "[::1]:8": "http://[::1]:8/ari"},
        )
        self.assertRefused("service.asterisk.user", "a:b", "")
        self.assertRefused("service.kafka.bootstrap-servers", "k", "k:1,", "")
        self.assertValues(
            "service.kafka.bootstrap-servers",
            "kafka.bootstrap_servers",
            {"a:1, b:2": "a:1,b:2", "PLAINTEXT://a:1": "PLAINTEXT://a:1"},
        )

    def test_choices(self) -> None:
        """One word of a few."""
        self.assertRefused("service.kafka.security.protocol", "TLS", "ssl", "")
        self.assertRefused("service.logging.level", "trace", "INFO")
        self.assertRefused("service.asterisk.rest-over-websocket", "yes")

    def test_store(self) -> None:
        """The original's class names, and short ones."""
        java = "io.retel.ariproxy.persistence.plugin."
        self.assertValues(
            "service.persistence-store",
            "persistence_store",
            {
                "redis": "redis",
                "memory": "memory",
                java + "RedisPersistenceStore": "redis",
                java + "InMemoryPersistenceStore": "memory",
            },
        )
        self.assertRefused("service.persistence-store", "mysql", "", java)

    def test_sqlite(self) -> None:
        """A JDBC address names the file."""
        for url, path in {
            "jdbc:sqlite:/var/lib/x.db": "/var/lib/x.db",
            "jdbc:sqlite::memory:": ":memory:",
            "jdbc:sqlite:a b.db": "a b.db",
        }.items():
            config = self.load(f"service.sqlite.url={url}")
            self.assertEqual(config.sqlite.path, path)
        self.assertRefused("service.sqlite.url", "jdbc:sqlite:", "/var/x", "")

    def test_properties(self) -> None:
        """Nested blocks, dotted and quoted keys all give dotted names."""
        config = self.load(
            "service.kafka.librdkafka={ a { b = 1, c = [x, y] }, d.e = 2, f = null }",
            'service.kafka.librdkafka."g.h"=3',
            "datastax-java-driver={ basic { contact-points = [a, b] } }",
        )
        self.assertEqual(
            config.kafka.librdkafka, {"a.b": "1", "a.c": "x,y", "d.e": "2", "g.h": "3"}
        )
        self.assertEqual(config.datastax, {"basic": {"contact-points": ["a", "b"]}})
        self.assertRefused("service.kafka.librdkafka", "x", "[1]")

    def test_null(self) -> None:
        """Null is as if the key were not there."""
        self.assertEqual(self.load("service.name=null").name, "ari-proxy")
        self.assertProblem("httpport: missing, required", "service.httpport=null")

    def test_block_for_text(self) -> None:
        """A block where a text belongs, and the other way round."""
        self.assertRefused("service.name", "{ a = 1 }", "[a]")
        self.assertProblem(
            "--set: service.cache: found a value; allowed: a block", "service.cache=1"
        )

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """No text makes a kind fail in another way."""
        for key in keys():
            for raw in (text, [text], {text: text}, {"a": {"b": [text]}}):
                try:
                    key.kind.read(raw)
                except ValueError:
                    continue


class AddressTests(LoadedConfig):
    """The two addresses, and the credentials in them."""

    def test_defaults(self) -> None:
        """They are made of server, application and tls."""
        config = self.load("service.asterisk.tls=true", "service.stasis-app=a b&c")
        self.assertEqual(
            config.websocket.uri, "wss://localhost:8088/ari/events?app=a%20b%26c"
        )
        self.assertEqual(config.rest.uri, "https://localhost:8088/ari")

    def test_api_key(self) -> None:
        """``api_key`` is taken out, decoded, and the rest of the query kept."""
        uri = "wss://h/x?api_key=u:p%3Aq+r&app=application-name&subscribeAll=true#f"
        config = self.load(f"service.websocket-uri={uri}")
        self.assertEqual(
            config.websocket.uri, "wss://h/x?app=application-name&subscribeAll=true"
        )
        self.assertEqual(config.websocket.user, "u")
        self.assertEqual(config.websocket.password, Secret("p:q r"))
        self.assertEqual(config.asterisk.user, "asterisk")
        self.assertEqual(config.rest.user, "asterisk")

    def test_user_in_address(self) -> None:
        """Credentials in front of the host are taken out as well."""
        config = self.load(
            "service.websocket-uri=ws://u:p%40@h:1/x?app=application-name",
            "service.rest.uri=http://v:q@h:2/ari//",
        )
        self.assertEqual(config.websocket.uri, "ws://h:1/x?app=application-name")
        self.assertEqual(config.websocket.password, Secret("p@"))
        self.assertEqual(config.rest.uri, "http://h:2/ari")
        self.assertEqual(config.rest.user, "v")
        self.assertEqual(config.rest.password, Secret("q"))

    def test_keys_win_over_address(self) -> None:
        """``rest.user`` and ``rest.password`` win over those in ``rest.uri``."""
        config = self.load(
            "service.rest.uri=http://v:q@h:2/ari",
            "service.rest.user=w",
            "service.rest.password=r",
        )
        self.assertEqual(config.rest.user, "w")
        self.assertEqual(config.rest.password, Secret("r"))

    def test_bad_addresses(self) -> None:
        """A bad address is refused and, as it may hold a secret, not shown."""
        for key, texts in {
            "service.websocket-uri": ["http://h", "ws://", "ws://h:x/hunter2", "ws:",
                                      "ws://h:70000", "ws://[", "ws://h/ hunter2",
                                      "ws://h?api_key=hunter2"],
            "service.rest.uri": ["ws://h", "h:1", "http://h/?api_key=a:hunter2"],
        }.items():  # fmt: skip
            for text in texts:
                problem = self.problems(f"{key}={text}")[0]
                self.assertIn(f"{key}: found a value that may hold a secret", problem)
                self.assertNotIn("hunter2", problem)

    def test_other_application(self) -> None:
        """An address for another application is a contradiction."""
        for query in [
            "",
            "?app=other",
            "?app=application-name,other",
            "?app=application-name&app=other",
        ]:
            self.assertProblem(
                "its query must hold app=", f"service.websocket-uri=ws://h:1/x{query}"
            )


class SecretTests(LoadedConfig):
    """Passwords: whatever they hold, and never to be seen."""

    def test_sources(self) -> None:
        """From the environment, a file, a credential of systemd."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "ari").write_bytes(b" pass word \r\n")
        file = folder / "service.conf"
        file.write_text(Path(ORIGINAL).read_text())
        environ = {"PW": "from env", "CREDENTIALS_DIRECTORY": str(folder)}
        for text, expected in {
            "plain": "plain",
            "env:PW": "from env",
            "file:ari": " pass word ",
            f"file:{folder.absolute()}/ari": " pass word ",
            "credential:ari": " pass word ",
            "other:x": "other:x",
            "": "",
        }.items():
            config = load(str(file), [f"service.asterisk.password={text}"], environ)
            self.assertEqual(config.rest.password.reveal(), expected, text)

    def test_missing_sources(self) -> None:
        """What is missing is told by name."""
        for text, expected in {
            "env:PW": "the environment has no PW",
            "file:/no/such": "the file /no/such cannot be read: No such file",
            "credential:ari": "no credential ari; systemd gives it",
        }.items():
            self.assertProblem(
                f"service.asterisk.password: {expected}",
                f"service.asterisk.password={text}",
            )
        self.assertProblem(
            "without '/'", "service.redis.password=credential:../x",
            CREDENTIALS_DIRECTORY="/",
        )  # fmt: skip

    def test_properties(self) -> None:
        """Passwords among properties for a library have the same sources."""
        config = self.load(
            'service.kafka.librdkafka={ssl.key.password = "env:PW", a = "env:PW"}',
            'datastax-java-driver.auth.password="env:PW"',
            PW="x",
        )
        self.assertEqual(
            config.kafka.librdkafka, {"ssl.key.password": "x", "a": "env:PW"}
        )
        self.assertEqual(config.datastax, {"auth": {"password": "x"}})

    def test_never_shown(self) -> None:
        """No repr of a configuration holds a password."""
        config = self.load(
            "service.asterisk.password=hunter2",
            "service.websocket-uri=ws://u:hunter2@h:1/x?app=application-name",
            "service.rest.uri=http://u:hunter2@h:1/ari",
            "service.kafka.security.password=hunter2",
            "service.redis.password=hunter2",
            "service.kafka.librdkafka={ sasl { password = hunter2 } }",
            "akka.kafka.producer.kafka-clients.ssl=hunter2",
            "datastax-java-driver.auth.password=hunter2",
        )
        for shown in (repr(config), str(config), f"{config.rest.password}"):
            self.assertNotIn("hunter2", shown)
        self.assertRaises(TypeError, pickle.dumps, config.rest.password)

    def test_not_in_problems(self) -> None:
        """Nor does a message, where a password was put to another key."""
        problems = self.problems(
            "service.asterisk.password=hunter2",
            "service.name=my hunter2",
            "service.redis.ttl=${service.asterisk.password}",
            "service.kafka.security.password={ a = hunter2 }",
            "service.hunter=hunter2",
        )
        self.assertEqual(len(problems), 4)
        self.assertNotIn("hunter2", "".join(problems))

    def test_equality(self) -> None:
        """Secrets compare by their text, and with nothing else."""
        self.assertEqual(Secret("é"), Secret("é"))
        self.assertEqual(hash(Secret("a")), hash(Secret("a")))
        self.assertNotEqual(Secret("a"), Secret("b"))
        self.assertNotEqual(Secret("a"), "a")
        self.assertFalse(Secret(""))

    def test_texts_like_numbers(self) -> None:
        """A password stays the text that was written, without quotes too."""
        file = self.mktemp()
        for text in ["007", "10s", "1.10", "true", "on", "1e5", "-0", "3 hours"]:
            Path(file).write_text(
                f"{Path(ORIGINAL).read_text()}\nservice.asterisk.password = {text} # x"
            )
            self.assertEqual(load(file, (), {}).asterisk.password.reveal(), text)

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_any_password(self, text: str) -> None:
        """Any text can be a password, from the file or the environment."""
        config = self.load(
            "service.asterisk.password=env:PW",
            "service.redis.password=${PW}",
            f"service.kafka.security.password={json.dumps('x' + text)}",
            PW="x" + text,
        )
        for secret in (
            config.asterisk.password,
            config.redis.password,
            config.kafka.security.password,
        ):
            assert secret is not None
            self.assertEqual(secret.reveal(), "x" + text)
