"""The console command ``ari-proxy dead-letters``, on librdkafka's mock cluster."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from itertools import count
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.cli import main
from ariproxy.kafka.partitioner import murmur2
from tests.test_kafka_confluent import mock_cluster

SAMPLE = str(Path(__file__).parents[1] / "etc" / "ari-proxy" / "service.conf")
TIME = 1_700_000_000_000
WRITTEN = "2023-11-14T22:13:20.000Z"
GOOD = b'{"callContext":"call","commandId":"1","ariCommand":{}}'

_numbers = count()


class DeadLetterCase(SynchronousTestCase):
    """A dead-letter topic and a commands topic for each test."""

    def setUp(self) -> None:
        number = next(_numbers)
        self.bootstrap = mock_cluster().bootstrap
        self.letters, self.commands = f"letters-{number}", f"commands-{number}"
        for topic in (self.letters, self.commands):
            mock_cluster().create(topic)
        self.client = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0})
        self.more: list[str] = []

    def letter(
        self,
        value: bytes | None,
        key: bytes | None = b"call",
        *headers: tuple[str, bytes],
        error: bytes = b"no JSON",
        partition: int = 0,
        time: int = TIME,
    ) -> None:
        """Write one as the proxy does."""
        ours = (
            ("error", error),
            ("topic", self.commands.encode()),
            ("partition", b"3"),
            ("offset", b"4711"),
        )
        self.write(value, key, [*headers, *ours], partition, time)

    def write(
        self,
        value: bytes | None,
        key: bytes | None,
        headers: list[tuple[str, str | bytes | None]],
        partition: int = 0,
        time: int = TIME,
    ) -> None:
        self.client.produce(
            self.letters,
            value,
            key,
            partition=partition,
            timestamp=time,
            headers=headers,
        )
        self.assertEqual(self.client.flush(10), 0)

    def options(self) -> list[str]:
        """For the command line: this cluster and these topics."""
        settings = [
            f"kafka.bootstrap-servers={self.bootstrap}",
            f"kafka.dead-letter-topic={self.letters}",
            "kafka.librdkafka.fetch.wait.max.ms=2",
            "persistence-store=memory",
            *self.more,
        ]
        return [each for one in settings for each in ("--set", f"service.{one}")]

    def run_command(
        self, *arguments: str, stdin: bytes = b""
    ) -> tuple[int, bytes, str]:
        """Status, output and errors."""
        data, err = BytesIO(), StringIO()
        out = TextIOWrapper(data, "utf-8")
        self.patch(sys, "stdin", TextIOWrapper(BytesIO(stdin)))
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = main(["dead-letters", SAMPLE, *self.options(), *arguments])
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
        out.flush()
        return status, data.getvalue(), err.getvalue()

    def output(self, *arguments: str, stdin: bytes = b"") -> str:
        """What it prints when all is well."""
        status, out, err = self.run_command(*arguments, stdin=stdin)
        self.assertEqual((status, err), (0, ""))
        return out.decode()

    def failure(self, *arguments: str, stdin: bytes = b"") -> str:
        """The one line with which it fails."""
        status, out, err = self.run_command(*arguments, stdin=stdin)
        self.assertEqual((status, out), (1, b""), err)
        self.assertEqual(len(err.splitlines()), 1, err)
        return err.rstrip("\n")


class ListTests(DeadLetterCase):
    """``list``."""

    def test_columns(self) -> None:
        """Place, time, where it came from, size, error and how it begins."""
        self.letter(b"{broken")
        self.assertEqual(
            self.output("list").split("  "),
            [
                *("0/0", WRITTEN, f"{self.commands}/3/4711", "7 bytes", "no JSON"),
                "{broken\n",
            ],
        )

    def test_order(self) -> None:
        """By time over all partitions; ``--last`` gives the newest of all."""
        for number, partition in enumerate((2, 0, 3, 0, 1)):
            self.letter(b"x", partition=partition, time=TIME + number)
        places = ["2/0", "0/0", "3/0", "0/1", "1/0"]
        for arguments, expected in (
            ([], places),
            (["--last", "2"], places[-2:]),
            (["--last", "9"], places),
        ):
            lines = self.output("list", *arguments).splitlines()
            self.assertEqual([line.split()[0] for line in lines], expected)

    def test_beginning(self) -> None:
        """60 characters, however many bytes; what is no text shows as escapes."""
        for value in ("ä€😀".encode() * 40, b"\xff\x00\n\x1b[2J", None):
            self.letter(value)
        first, second, third = self.output("list").splitlines()
        self.assertTrue(first.endswith("  " + "ä€😀" * 20), first)
        self.assertTrue(second.endswith("  \\xff\\x00\\n\\x1b[2J"), second)
        self.assertIn("0 bytes", third)

    def test_one_line_each(self) -> None:
        """Whatever is in the headers."""
        self.letter(b"x", error=b"two\nlines \x1b[31m\xff")
        [line] = self.output("list").splitlines()
        self.assertIn("two\\nlines \\x1b[31m\\xff", line)

    def test_json(self) -> None:
        """One object for each."""
        self.letter(b"x" * 100)
        self.write(b"y", None, [("offset", b"-1"), ("partition", b"x")], time=TIME + 1)
        first, second = map(json.loads, self.output("list", "--json").splitlines())
        self.assertEqual(
            first,
            {
                "partition": 0,
                "offset": 0,
                "time": WRITTEN,
                "from": {"topic": self.commands, "partition": 3, "offset": 4711},
                "error": "no JSON",
                "size": 100,
                "beginning": "x" * 60,
            },
        )
        nowhere = {"topic": None, "partition": None, "offset": None}
        self.assertEqual((second["from"], second["error"]), (nowhere, None))

    def test_time_out_of_range(self) -> None:
        """Any 64 bits may stand there."""
        self.letter(b"x", time=2**62)
        self.assertEqual(self.output("list").split()[:2], ["0/0", "-"])

    def test_none(self) -> None:
        """Said on stderr, with status 1."""
        self.assertEqual(
            self.failure("list"), f"ari-proxy: there is no letter in {self.letters}"
        )

    def test_leaves_no_trace(self) -> None:
        """The proxy's consumer group has no more offsets than before."""
        self.letter(b"x")
        self.more = ["kafka.consumer-group=looked-at"]
        self.output("list")
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "looked-at"}
        )
        asked = [TopicPartition(self.letters, each) for each in range(4)]
        found = consumer.committed(asked, 10)
        consumer.close()
        self.assertTrue(all(each.offset < 0 for each in found), found)

    def test_reader_went_away(self) -> None:
        """``list | head`` ends without complaint."""
        self.letter(b"x")
        reading, writing = os.pipe()
        os.close(reading)
        err = StringIO()
        with os.fdopen(writing, "w") as out, redirect_stdout(out), redirect_stderr(err):
            status = main(["dead-letters", SAMPLE, *self.options(), "list"])
        self.assertEqual((status, err.getvalue()), (0, ""))


class ShowTests(DeadLetterCase):
    """``show``."""

    def test_text(self) -> None:
        """All that there is; the value with its lines, but without orders."""
        self.letter(
            "zwölf\n\tlines \x1b[2J".encode(), b"call", ("traceparent", b"00-1")
        )
        self.assertEqual(
            self.output("show", "0/0"),
            "letter:  0/0\n"
            f"time:    {WRITTEN}\n"
            f"from:    {self.commands}/3/4711\n"
            "error:   no JSON\n"
            "key:     call\n"
            "header:  traceparent: 00-1\n"
            "value:   18 bytes\n"
            "\n"
            "zwölf\n\tlines \\x1b[2J\n",
        )

    def test_no_text(self) -> None:
        """Bytes that are no UTF-8 are shown in base64; nothing as nothing."""
        self.letter(b"\xff\xfe", b"\xff")
        self.letter(None, None)
        out = self.output("show", "0/0")
        self.assertIn("key:     base64 /w==\n", out)
        self.assertTrue(out.endswith("\nbase64 //4=\n"), out)
        out = self.output("show", "0/1")
        self.assertTrue(out.endswith("key:     none\nvalue:   none\n"), out)

    def test_json(self) -> None:
        """The same as one object."""
        self.letter(b"{", b"call", ("a", b"1"), ("a", b"\xff"))
        found = json.loads(self.output("show", "0/0", "--json"))
        self.assertEqual((found["key"], found["value"]), ("call", "{"))
        self.assertEqual(
            found["headers"],
            [{"name": "a", "value": "1"}, {"name": "a", "value_base64": "/w=="}],
        )
        self.letter(b"\xff", None)
        found = json.loads(self.output("show", "0/1", "--json"))
        self.assertEqual((found["key"], found["value_base64"]), (None, "/w=="))

    def test_value(self) -> None:
        """Byte for byte."""
        self.letter(b"\xff\r\n{")
        self.assertEqual(
            self.run_command("show", "0/0", "--value"), (0, b"\xff\r\n{", "")
        )

    def test_none(self) -> None:
        """No such offset, no such partition."""
        self.letter(b"x")
        for place in ("0/1", "1/0", "99/0", f"0/{10**18 - 1}"):
            self.assertEqual(
                self.failure("show", place),
                f"ari-proxy: there is no letter {place} in {self.letters}",
            )


class SendTests(DeadLetterCase):
    """``send``."""

    def sent(self, out: str, topic: str | None = None) -> tuple[int, Any]:
        """The partition and the record that the command says it has sent."""
        topic = topic or self.commands
        self.assertRegex(out, rf"\A0/0 sent again: {topic}/\d/\d+\n\Z")
        partition, offset = map(int, out.split("/")[-2:])
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "test", "log_level": 0}
        )
        consumer.assign([TopicPartition(topic, partition, offset)])
        message: Any = consumer.poll(10)
        consumer.close()
        self.assertIsNone(message.error())
        return partition, message

    def test_as_it_came(self) -> None:
        """Key, value and foreign headers; the partition is the Java client's."""
        for key in (b"call", b"21", b"a-little-bit-long-string"):
            self.setUp()
            self.letter(b"\xff{", key, ("traceparent", b"00-1"))
            partition, message = self.sent(self.output("send", "0/0"))
            self.assertEqual((message.key(), message.value()), (key, b"\xff{"))
            self.assertEqual(message.headers(), [("traceparent", b"00-1")])
            self.assertEqual(partition, (murmur2(key) & 0x7FFFFFFF) % 4)

    def test_nothing(self) -> None:
        """Neither key nor value."""
        self.letter(None, None)
        _, message = self.sent(self.output("send", "0/0"))
        self.assertEqual(
            (message.key(), message.value(), message.headers()), (None, None, None)
        )

    def test_mended(self) -> None:
        """From a file or from standard input."""
        self.letter(b"{")
        with tempfile.NamedTemporaryFile() as file:
            file.write(GOOD)
            file.flush()
            _, message = self.sent(self.output("send", "0/0", "--value", file.name))
        self.assertEqual((message.key(), message.value()), (b"call", GOOD))
        out = self.output("send", "0/0", "--value", "-", stdin=GOOD + b"\n")
        _, message = self.sent(out)
        self.assertEqual(message.value(), GOOD + b"\n")

    def test_not_mended(self) -> None:
        """A value that would be buried again is not sent."""
        self.letter(b"{")
        line = self.failure("send", "0/0", "--value", "-", stdin=b"{{")
        self.assertIn("--value -: not sent, as it cannot be read either: ", line)
        self.assertEqual(
            self.failure("send", "0/0", "--value", "no-such-file"),
            "ari-proxy: --value no-such-file: No such file or directory",
        )

    def test_topic(self) -> None:
        """A letter without headers, as of pykafka, must be told where to go."""
        self.write(b"x", b"call", [])
        self.assertIn("name it by --topic", self.failure("send", "0/0"))
        out = self.output("send", "0/0", "--topic", self.commands)
        self.assertEqual(self.sent(out)[1].value(), b"x")

    def test_too_large(self) -> None:
        """One line."""
        self.letter(b"{")
        large = b'{"ariCommand":"%s"}' % (b"x" * 1024 * 1024)
        line = self.failure("send", "0/0", "--value", "-", stdin=large)
        self.assertIn(f"{self.commands}: ", line)
        self.assertIn("too large", line)

    def test_settings_of_the_site(self) -> None:
        """None of them makes it wait for ever, or commit."""
        self.letter(b"x")
        self.more = [
            "kafka.librdkafka.message.timeout.ms=0",
            "kafka.librdkafka.enable.auto.commit=true",
        ]
        self.sent(self.output("send", "0/0"))

    def test_pykafka(self) -> None:
        """The daemon's choice of a client is not this command's."""
        self.letter(b"x")
        self.more = ["kafka.client=pykafka"]
        self.sent(self.output("send", "0/0"))


class TroubleTests(DeadLetterCase):
    """What goes wrong is one line, and no secret is in it."""

    def test_no_topic_set(self) -> None:
        """The line names file and key."""
        self.letters = "null"
        line = self.failure("list")
        self.assertIn(f"{SAMPLE}: service.kafka.dead-letter-topic: missing", line)

    def test_bad_configuration(self) -> None:
        """A line for each fault."""
        self.more = ["kafka.no-such-key=1"]
        self.assertIn("service.kafka.no-such-key: unknown", self.failure("list"))

    def test_property_of_librdkafka(self) -> None:
        """One that it refuses, of the consumer or the producer."""
        self.letter(b"x")
        self.more = ["kafka.librdkafka.no.such=1"]
        self.assertIn("no.such", self.failure("list"))
        self.more = ["kafka.librdkafka.compression.type=no-such"]
        self.assertIn("compression.", self.failure("send", "0/0"))

    def test_kafka_away(self) -> None:
        """Within seconds, and with the reason."""
        self.bootstrap = "127.0.0.1:1"
        self.more = ["kafka.security.password=s3cret"]
        line = self.failure("list")
        self.assertIn("ari-proxy: Kafka at 127.0.0.1:1 does not answer: ", line)
        self.assertIn("refused", line)
        self.assertIn("see service.kafka.bootstrap-servers", line)
        self.assertNotIn("s3cret", line)

    def test_usage(self) -> None:
        """Status 2, and what is wrong."""
        for arguments in (
            [],
            ["show"],
            ["show", "1"],
            ["show", "-1/0"],
            ["show", "1/x"],
            ["show", f"0/{10**18}"],
            ["show", "0/0", "--json", "--value"],
            ["list", "--last", "0"],
            ["list", "--last", "x"],
            ["bury"],
        ):
            status, out, err = self.run_command(*arguments)
            self.assertEqual((status, out), (2, b""), arguments)
            self.assertIn("usage: ari-proxy dead-letters", err)

    def test_help(self) -> None:
        """With examples, on a terminal of 80 columns."""
        out = self.output("--help")
        self.assertLess(max(map(len, out.splitlines())), 80)
        self.assertIn("ari-proxy dead-letters service.conf list --last 20\n", out)
