"""Tests for ``ariproxy.config``: keys, kinds, checks and the sample files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from msgspec.structs import asdict
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.config import Config, Properties, Secret, hocon, keys, load, spelled
from ariproxy.errors import ConfigError

HERE = Path(__file__).parent
ORIGINAL = str(HERE / "configs" / "original.conf")
SAMPLE = HERE.parent / "etc" / "ari-proxy" / "service.conf"


class LoadedConfig(SynchronousTestCase):
    """A base: the original's sample file with some overrides."""

    def load(self, *overrides: str, **environ: str) -> Config:
        return load(ORIGINAL, overrides, environ)

    def problems(self, *overrides: str, **environ: str) -> tuple[str, ...]:
        error = self.assertRaises(ConfigError, self.load, *overrides, **environ)
        return error.problems

    def assertProblem(self, expected: str, *overrides: str, **environ: str) -> None:
        problems = self.problems(*overrides, **environ)
        self.assertEqual(len(problems), 1, problems)
        self.assertIn(expected, problems[0])


class SampleFileTests(SynchronousTestCase):
    """Files as they lie on the machines of operators."""

    def test_original(self) -> None:
        """The original's sample is understood unchanged."""
        config = load(ORIGINAL, (), {})
        self.assertEqual(config.name, "ari-proxy-for-some-application")
        self.assertEqual(config.stasis_app, "application-name")
        self.assertEqual(config.httpport, 9000)
        self.assertEqual(
            asdict(config.websocket),
            {
                "uri": "ws://localhost:8088/ari/events?app=application-name",
                "user": "asterisk",
                "password": Secret("asterisk"),
            },
        )
        self.assertEqual(
            asdict(config.rest),
            {
                "uri": "http://localhost:8088/ari",
                "user": "asterisk",
                "password": Secret("asterisk"),
            },
        )
        self.assertEqual(config.kafka.bootstrap_servers, "localhost:9092")
        self.assertEqual(config.kafka.consumer_group, "ari-proxy")
        self.assertEqual(config.kafka.commands_topic, "ari-commands-topic")
        self.assertEqual(
            config.kafka.events_and_responses_topic, "ari-eventsandresponses-topic"
        )
        self.assertEqual(config.persistence_store, "redis")
        redis = config.redis
        self.assertEqual((redis.host, redis.port, redis.db), ("127.0.0.1", 6379, 0))
        self.assertIs(redis.ttl, None)
        self.assertEqual(config.ignored, ())

    def test_addresses(self) -> None:
        """A file with both addresses needs no block for Asterisk."""
        config = load(str(HERE / "configs" / "addresses.conf"), (), {})
        self.assertEqual(
            config.websocket.uri, "ws://localhost:8088/ari/events?app=test-app"
        )
        self.assertEqual(config.websocket.user, "ari")
        self.assertEqual(config.websocket.password, Secret("s:cret"))
        self.assertEqual(config.rest.uri, "http://localhost:8088")
        self.assertEqual(config.rest.user, "rest-user")
        self.assertEqual(config.rest.password, Secret("rest-password"))
        self.assertEqual(config.asterisk.server, "localhost:8088")
        self.assertEqual(config.asterisk.user, "ari")
        self.assertEqual(config.asterisk.password, Secret("s:cret"))
        self.assertEqual(config.persistence_store, "memory")
        self.assertEqual((config.sqlite.path, config.sqlite.ttl), (":memory:", 1.0))
        self.assertEqual(config.metrics.common_tags, {"hostname": "localhost"})
        self.assertEqual(config.akka.user_agent, "my-proxy")
        self.assertEqual(config.akka.idle_timeout, 30.0)
        self.assertEqual(config.akka.websocket_keep_alive_idle, 5.0)
        self.assertEqual(
            config.ignored,
            ("akka.loggers", "akka.loglevel", "akka.http.server.default-http-port"),
        )

    def test_site(self) -> None:
        """Includes, inherited blocks and the environment make one file for all."""
        site = str(HERE / "configs" / "site.conf")
        environ = {"SITE": "paris", "ARI_PASSWORD": "007", "HTTP_PORT": "8081"}
        config = load(site, ["service.kafka.commands-topic=c"], environ)
        self.assertEqual(config.name, "ari-proxy-paris")
        self.assertEqual(config.httpport, 8081)
        self.assertEqual(config.asterisk.server, "pbx.paris.example:8088")
        self.assertEqual(config.asterisk.password, Secret("007"))
        self.assertEqual(config.kafka.consumer_group, "ari-proxy-paris")
        self.assertEqual(config.kafka.bootstrap_servers, "kafka-1:9092,kafka-2:9092")
        self.assertEqual(config.kafka.commands_topic, "c")
        self.assertEqual(config.sqlite.path, "/var/lib/ari-proxy/paris.db")
        self.assertEqual(config.sqlite.ttl, 21600.0)
        self.assertEqual(config.metrics.common_tags, {"site": "paris"})
        self.assertEqual(
            config.akka.producer, {"delivery.timeout.ms": "20000", "linger.ms": "5"}
        )
        self.assertEqual(
            config.ignored, ("kafka-of-all-sites", "site", "asterisk-port")
        )
        self.assertEqual(load(site, (), {"ARI_PASSWORD": "x"}).httpport, 9000)


class ShippedFileTests(SynchronousTestCase):
    """``etc/ari-proxy/service.conf``, in which ``#key`` shows a default."""

    def uncommented(self) -> str:
        return re.sub(r"(?m)^(\s*)#(?=[a-z])", r"\1", SAMPLE.read_text())

    def test_loads(self) -> None:
        """It is a working file as it is shipped."""
        config = load(str(SAMPLE), (), {})
        self.assertEqual(config.stasis_app, "my-application")
        self.assertEqual(config.ignored, ())

    def test_commented_defaults(self) -> None:
        """Each default that it shows is the one that the program has."""
        file = self.mktemp()
        Path(file).write_text(self.uncommented())
        everything = load(file, ["service.sqlite=null"], {})
        self.assertEqual(everything, load(str(SAMPLE), (), {}))

    def test_complete(self) -> None:
        """Every key is in it."""
        file = self.mktemp()
        Path(file).write_text(self.uncommented())
        values = hocon.read(file, (), {}, {}).values
        for key in keys():
            block: Any = values
            for part in key.path:
                self.assertIn(part, block, key.name)
                block = block[part]

    def test_required_are_live(self) -> None:
        """What is required is set, and what is not is commented out."""
        live = hocon.read(str(SAMPLE), (), {}, {}).values
        for key in keys():
            value: Any = live
            for part in key.path:
                value = value.get(part, {})
            needed = key.required or key.required_with == "redis"
            self.assertEqual(value != {}, needed, key.name)


class KeysTests(SynchronousTestCase):
    """The list of keys, from which the reference is made."""

    def test_every_key_of_the_original(self) -> None:
        """The original's spelling is kept, camel case and all."""
        names = [key.name for key in keys()]
        self.assertEqual(len(names), len(set(names)))
        for name in [
            "service.httpport",
            "service.websocket-uri",
            "service.kafka.parallel-consumer-max-concurrency",
            "service.metrics.healthReportTimeout",
            "service.metrics.measurement-names.backing-service-availability",
            "akka.http.client.user-agent-header",
            "akka.kafka.producer.kafka-clients",
            "datastax-java-driver",
        ]:
            self.assertIn(name, names)

    def test_meanings(self) -> None:
        """Each key is told in a sentence, and what it may hold in a phrase."""
        for key in keys():
            self.assertRegex(key.meaning, r"\A[A-Za-z].*\.\Z", key.name)
            self.assertTrue(key.kind.allowed, key.name)

    def test_defaults_read_back(self) -> None:
        """A default is spelled so that it can be written in a file."""
        for key in keys():
            text = None if key.required_with else spelled(key.default)
            if key.required or key.derived or text is None:
                continue
            raw = json.loads(text) if text[0] in '{["' else text
            self.assertEqual(key.kind.read(raw), key.default, key.name)

    def test_spelled(self) -> None:
        """Durations and sizes come in the largest unit that fits."""
        for value, text in [
            (None, None),
            (True, "true"),
            (0.1, "100ms"),
            (1.5, "1500ms"),
            (90.0, "90s"),
            (21600.0, "6h"),
            (172800.0, "2d"),
            (2 * 1024**3, "2GiB"),
            (0, "0"),
            ("", '""'),
            ((), "[]"),
            (Properties(), "{}"),
        ]:
            self.assertEqual(spelled(value), text)


class ProblemTests(LoadedConfig):
    """What is wrong, where, and what is allowed."""

    def test_all_at_once(self) -> None:
        """All problems are told, each in one line with its source."""
        problems = self.problems(
            "service.httpport=x\ny",
            "service.kafka.commands-topic=null",
            "service.nmae=a",
            "service.persistence-store=sqlite",
        )
        self.assertEqual(
            list(problems),
            [
                '--set: service.httpport: found "x\\ny"; allowed: a port, 1 to 65535',
                "--set: service.nmae: unknown; did you mean service.name?",
                f"{ORIGINAL}: service.kafka.commands-topic: missing, required: a "
                "topic: up to 249 letters, digits, '.', '_' and '-'",
                f"{ORIGINAL}: service.sqlite.url: missing, required with "
                "service.persistence-store = sqlite: jdbc:sqlite:PATH or "
                "jdbc:sqlite::memory:",
                f"{ORIGINAL}: service.sqlite.ttl: missing, required with "
                "service.persistence-store = sqlite: a duration of 1s at least, "
                "like 6h",
            ],
        )

    def test_long_value(self) -> None:
        """A long value is cut."""
        self.assertLess(len(self.problems("service.name=" + "é" * 999)[0]), 160)

    def test_empty_file(self) -> None:
        """Each required key is named, and none that has a default."""
        file = self.mktemp()
        Path(file).touch()
        error = self.assertRaises(ConfigError, load, file, (), {})
        missing = [problem.split(": ")[1] for problem in error.problems]
        expected = [key.name for key in keys() if key.required]
        redis = [key.name for key in keys() if key.required_with == "redis"]
        self.assertEqual(missing, expected + redis)

    def test_unknown(self) -> None:
        """An unknown key is an error, with what was perhaps meant."""
        for key, hint in {
            "service.stasis_app": "; did you mean service.stasis-app?",
            "service.asterisk.sever": "; did you mean service.asterisk.server?",
            "service.kafak.x": "; did you mean service.kafka?",
            "service.bootstrap-servers": (
                "; did you mean service.kafka.bootstrap-servers?"
            ),
            "service.kafka.securty": "; did you mean service.kafka.security?",
            "service.zzz": "unknown",
        }.items():
            problems = self.problems(f"{key}=1")
            self.assertEqual(len(problems), 1)
            self.assertTrue(problems[0].endswith(hint), problems)

    def test_foreign_blocks(self) -> None:
        """Other blocks are for other programs; they are noted."""
        config = self.load(
            "akka.http.x=1",
            "akka.y={ z = 1 }",
            "jolokia.port=5",
            "datastax-java-driver={}",
        )
        self.assertEqual(config.ignored, ("akka.http.x", "akka.y.z", "jolokia"))

    def test_stores(self) -> None:
        """Keys of a store are required with this store only."""
        self.assertProblem("redis.host: missing", "service.redis.host=null")
        config = self.load("service.persistence-store=memory", "service.redis=null")
        self.assertEqual(config.persistence_store, "memory")
        self.assertEqual(
            self.load(
                "service.persistence-store=sqlite",
                "service.redis=null",
                "service.sqlite.url=jdbc:sqlite::memory:",
                "service.sqlite.ttl=1h",
            ).sqlite.ttl,
            3600.0,
        )

    def test_kafka_security(self) -> None:
        """What SASL and TLS need, and where their keys mean nothing."""
        block = "service.kafka.security"
        problems = self.problems(f"{block}.protocol=SASL_SSL")
        self.assertIn("user: missing; required with SASL_SSL", problems[0])
        self.assertIn("password: missing; required with SASL_SSL", problems[1])
        security = self.load(
            f"{block}.protocol=SASL_SSL", f"{block}.user=u", f"{block}.password=p",
            f"{block}.ca=/ca.pem",
        ).kafka.security  # fmt: skip
        self.assertEqual(security.mechanism, "SCRAM-SHA-256")
        self.load(
            f"{block}.protocol=SASL_SSL", "service.kafka.librdkafka.sasl.mechanism=X"
        )
        # The original ignored a user without SASL.
        self.load(f"{block}.user=u", f"{block}.password=p")
        self.assertProblem("used with SSL or SASL_SSL only", f"{block}.ca=/x")
        self.assertProblem(
            "security.key: missing; required with service.kafka.security.certificate",
            f"{block}.protocol=SSL", f"{block}.certificate=/x",
        )  # fmt: skip

    def test_redis(self) -> None:
        """A CA needs TLS, and a user a password."""
        self.assertProblem("redis.tls = true only", "service.redis.ca=/x")
        self.assertProblem("redis.password: missing", "service.redis.username=u")

    def test_asterisk_ca(self) -> None:
        """It needs an address of Asterisk that has TLS."""
        ca = "service.asterisk.ca=/ca.pem"
        self.assertProblem("asterisk.tls = true, or addresses of https and wss", ca)
        self.load(ca, "service.asterisk.tls=true")
        self.load(ca, "service.rest.uri=https://a/ari")
        app = self.load().stasis_app
        self.load(ca, f"service.websocket-uri=wss://a/ari/events?app={app}")

    def test_same_topics(self) -> None:
        """No two topics may be one."""
        self.assertProblem(
            "--set: service.kafka.dead-letter-topic: the same topic as "
            "service.kafka.commands-topic",
            "service.kafka.dead-letter-topic=ari-commands-topic",
        )

    def test_not_available(self) -> None:
        """What is still missing says so when it is asked for."""
        for override in [
            "service.stasis-app=a,b",
            "service.asterisk.mode=outbound",
            'service.asterisk.event-filter.allowed=["Dial"]',
            'service.asterisk.event-filter.disallowed=["Dial"]',
            "service.kafka.unrouted-events-topic=t",
            "service.events.all-types=true",
            "service.events.gap-notices=true",
            "service.events.resync=true",
            "service.events.spool=/var/spool/x",
        ]:
            key = override.partition("=")[0]
            self.assertProblem(f"--set: {key}: found ", override)
            self.assertProblem("which is not available in this version", override)

    def test_available(self) -> None:
        """What is built is not refused."""
        self.load(
            "service.asterisk.rest-over-websocket=off",
            "service.asterisk.tls=true",
            "service.kafka.dead-letter-topic=t",
            "service.redis.tls=true",
            "service.redis.ca=/ca.pem",
        )

    def test_rules(self) -> None:
        """A rule is a method or ``*``, a blank and a path."""
        for rule in ["GET", "/x", "get /x", "GET x", "GET /x y", ""]:
            problem = self.problems(f"service.commands.deny={json.dumps([rule])}")[0]
            self.assertIn('; allowed: a list like ["POST', problem)
