"""Tests of ariproxy.events: what is published, and as what."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import capturedLogs

from ariproxy.ari.resources import EVENT_TYPES
from ariproxy.callcontext import KEY_PREFIX
from tests import frozen
from tests.events_case import (
    EventStreamCase,
    System,
    channel_event,
    event,
    stasis_start,
)
from tests.fakes import counted


class PublishTests(EventStreamCase):
    """Which events are published, and as what."""

    def test_frozen(self) -> None:
        """Every published type leaves as exactly the promised record."""
        for resource in ("1724500000.1", "1724500000.2", "b-1", "p-1", "r-1"):
            self.system.knows(resource, "frozen-call")
        for path in frozen.EVENT_FILES:
            name = EVENT_TYPES[path.stem].name
            self.system.receive(frozen.event(path.stem))
            record = self.system.publisher.records.pop()
            self.assertEqual(record.value, frozen.record(name))
            self.assertEqual(record.key, (frozen.KEYS[name] or "").encode())
            self.assertEqual((record.topic, record.headers), ("ari-events", ()))
            kind = EVENT_TYPES[path.stem].kind or "NONE"
            counted_ = self.system.counted("", eventType=name, resourceType=kind)
            self.assertEqual(counted_, 1)
        self.assertEqual(self.system.counted("published_"), 30)

    def test_rewritten(self) -> None:
        """The payload is re-written: compact, in UTF-8, numbers as the original's."""
        self.system.receive(
            b' { "type" : "StasisStart", "n": 1e2, "i": 123456789012345678901,\n'
            b'"channel" : {"id":"c", "name":"\\u00e4\\/"}, "a" : null } '
        )
        value = self.system.publisher.records[0].value or b""
        self.assertIn(
            b'"payload":{"type":"StasisStart","n":100.0,"i":123456789012345678901,'
            b'"channel":{"id":"c","name":"\xc3\xa4/"},"a":null},',
            value,
        )

    def test_key(self) -> None:
        """The key is the call context in UTF-8, whatever it holds."""
        for number, (call_context, key) in enumerate(
            (("Zoë €", "Zoë €".encode()), ("x?", b"x?"), ("7", b"7"))
        ):
            self.system.receive(stasis_start(f"c{number}", call_context))
            self.assertEqual(self.system.publisher.records[-1].key, key)
            self.assertEqual(self.system.values()[-1]["callContext"], call_context)

    def test_ids_of_other_types(self) -> None:
        """Numbers and booleans count as text; what is no id is dropped."""
        self.system.knows("5", "five")
        self.system.knows("true", "yes")
        self.system.receive(
            channel_event("ChannelHold", 5), channel_event("ChannelHold", True)
        )
        self.assertEqual(
            [(v["callContext"], v["resources"][0]["id"]) for v in self.system.values()],
            [("five", "5"), ("yes", "true")],
        )
        for wrong in ({"id": "5"}, ["5"], None, "", " "):
            self.system.receive(
                channel_event("ChannelHold", wrong), stasis_start(wrong, "given")
            )
        self.system.receive(event("ChannelHold"), event("ChannelHold", channel="5"))
        self.assertEqual(len(self.system.values()), 2)
        self.assertEqual(self.system.counted("unrouted_"), 12)

    def test_blank_id_goes_no_other_way(self) -> None:
        """An event without its main resource is dropped, as it always was."""
        self.system.receive(stasis_start("c", "ctx"))
        self.system.receive(
            event("ChannelEnteredBridge", bridge={"id": ""}, channel={"id": "c"}),
            event("Dial", caller={"id": "c"}),
        )
        self.assertEqual(self.system.passed(), [("STASIS_START", "ctx")])

    def test_global_variable(self) -> None:
        """A ChannelVarset without channel is a global variable and is dropped."""
        self.system.receive(event("ChannelVarset", variable="A", value="b"))
        self.assertEqual(self.system.values(), [])
        unrouted = self.system.counted("unrouted_", event_type="CHANNELVARSET")
        self.assertEqual(unrouted, 1)

    def test_never_published(self) -> None:
        """Types that are unknown or not for controllers are counted and dropped."""
        self.system.knows("c", "ctx")
        names = (
            "ChannelUserevent",
            "AriResponse",
            "DeviceStateChanged",
            "",
            "stasisstart",
        )
        self.system.receive(*(channel_event(each, "c") for each in names))
        self.assertEqual(self.system.values(), [])
        self.assertEqual(self.system.counted("", eventType="UNKNOWN"), 4)
        self.assertEqual(self.system.counted("", eventType="RESPONSE"), 1)

    def test_type_of_wrong_type(self) -> None:
        """No type, or one that is no text, is an unknown event."""
        for wrong in (None, 5, True, [], {}, ["StasisStart"]):
            self.system.receive(channel_event(wrong, "c"))
        self.system.receive(b"{}")
        unknown = self.system.counted("", eventType="UNKNOWN", resourceType="NONE")
        self.assertEqual(unknown, 7)
        self.assertEqual(self.system.counted("unrouted_", event_type="UNKNOWN"), 7)

    def test_unknown_resource(self) -> None:
        """Events of a resource without call context are counted and dropped."""
        self.system.receive(channel_event("ChannelHold", "c"))
        self.assertEqual(self.system.values(), [])
        unrouted = self.system.counted("unrouted_", event_type="CHANNEL_HOLD")
        self.assertEqual(unrouted, 1)

    def test_large(self) -> None:
        """A message of a megabyte is published as any other."""
        self.system.receive(
            stasis_start("c", "ctx"),
            channel_event("ChannelVarset", "c", value="ä" * 500_000),
        )
        self.assertEqual(len(self.system.values()[1]["payload"]["value"]), 500_000)

    def test_lone_surrogates(self) -> None:
        """A lone surrogate costs nothing, wherever it stands."""
        self.system.receive(
            b'{"type":"StasisStart","channel":{"id":"\\ud800","name":"\\udfff"}}',
            b'{"type":"ChannelHold","channel":{"id":"\\ud800"}}',
            b'{"type":"StasisStart","channel":{"id":"c",'
            b'"channelvars":{"CALL_CONTEXT":"\\ud800"}}}',
        )
        values = self.system.values()
        self.assertEqual(values[0]["payload"]["channel"]["name"], "\udfff")
        self.assertEqual(values[1]["payload"]["channel"]["id"], "\ud800")
        self.assertEqual(values[1]["resources"], [{"type": "CHANNEL", "id": "?"}])
        self.assertEqual(values[2]["callContext"], "?")
        self.assertEqual(self.system.publisher.records[2].key, b"?")
        for text in (*self.system.store.entries, *self.system.store.entries.values()):
            self.assertTrue(text.encode())

    def test_debug_lines(self) -> None:
        """At debug each message is a line with the original's marker."""
        self.system = System(verbose=True)
        with capturedLogs() as logs:
            self.system.receive(stasis_start("c", "ctx"), channel_event("Other", "c"))
        formats = [each["log_format"] for each in logs]
        self.assertEqual(formats[0], ">>>   ARI EVENT {text}")
        self.assertEqual(len(formats), 3)
        self.assertEqual(logs[2]["why"], "the type is not published")


class UndecodableTests(EventStreamCase):
    """Messages that are no events."""

    def test_counted_and_logged(self) -> None:
        """Each is counted as dropped; one line stands for all within 10 s."""
        wrong = [
            b"",
            b" ",
            b"hello",
            b"[]",
            b"null",
            b"5",
            b'"StasisStart"',
            b"{",
            b'{"type":"StasisStart"',
            b'{"type":"StasisStart"} {}',
            b'{"type":"Stasis\xffStart"}',
            b"\x00\xff\xfe",
            b'{"type":NaN}',
            b"[" * 10_000,
            b'{"type":"StasisStart","x":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
            b"x" * 1_000_000,
        ]
        with capturedLogs() as logs:
            self.system.receive(*wrong)
            self.system.clock.advance(10)
            self.system.receive(b"{")
        amount = len(wrong) + 1
        self.assertEqual(self.system.counted("dropped_", reason="undecodable"), amount)
        self.assertEqual(self.system.counted("", eventType="UNKNOWN"), amount)
        self.assertEqual([each["count"] for each in logs], [1, amount - 1])
        self.assertTrue(all(len(each["begin"]) <= 80 for each in logs))

    def test_every_depth(self) -> None:
        """However deep an event is nested, it is published or counted as dropped."""
        self.system.receive(stasis_start("c", "ctx"))
        depths = [*range(1, 1100, 7), 10_000, 200_000]
        with capturedLogs():
            for depth in depths:
                nested = b"[" * depth + b"]" * depth
                self.system.receive(
                    b'{"type":"ChannelHold","channel":{"id":"c"},"x":' + nested + b"}"
                )
        published = self.system.counted("published_") - 1
        dropped = self.system.counted("dropped_", reason="undecodable")
        self.assertEqual(published + dropped, len(depths))
        self.assertGreater(published, 50)

    def test_stream_goes_on(self) -> None:
        """Bad messages in between neither stop nor reorder the good ones."""
        self.system.receive(b"{", stasis_start("c", "ctx"), b"[]", b"\xff")
        self.system.receive(channel_event("StasisEnd", "c"), b"")
        self.assertEqual(
            self.system.passed(), [("STASIS_START", "ctx"), ("STASIS_END", "ctx")]
        )

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(
            st.binary(max_size=30)
            | st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                lambda inner: st.dictionaries(
                    st.sampled_from(
                        [
                            "id",
                            "channel",
                            "bridge",
                            "peer",
                            "channelvars",
                            "playback",
                            "CALL_CONTEXT",
                            "target_uri",
                            "channels",
                            "application",
                        ]
                    ),
                    inner | st.lists(inner, max_size=2),
                    max_size=4,
                ),
                max_leaves=8,
            )
            .map(lambda found: found if isinstance(found, dict) else {"id": found})
            .flatmap(
                lambda found: st.sampled_from(sorted(EVENT_TYPES)).map(
                    lambda name: json.dumps({**found, "type": name}).encode()
                )
            ),
            max_size=8,
        )
    )
    def test_anything(self, messages: list[bytes]) -> None:
        """Whatever comes, receive returns, and every message is in the books."""
        self.system = System()
        self.system.receive(*messages)
        self.system.clock.pump([1.0] * 5)
        self.check_balance()
        self.assertEqual(self.system.counted(""), len(messages))


class CallContextTests(EventStreamCase):
    """Under which call context an event leaves."""

    def test_given(self) -> None:
        """The channel variable is used, and goes before the stored one."""
        self.system.knows("c", "stored")
        self.system.receive(stasis_start("c", "given"), stasis_start("d", 17))
        self.system.receive(channel_event("ChannelHold", "c"))
        self.assertEqual(
            self.system.passed(),
            [
                ("STASIS_START", "given"),
                ("STASIS_START", "17"),
                ("CHANNEL_HOLD", "given"),
            ],
        )
        self.assertEqual(self.system.store.entries[KEY_PREFIX + "c"], "given")
        self.assertEqual(self.system.started, ["given", "17"])

    def test_blank(self) -> None:
        """A variable that is blank, or no text, counts as none."""
        self.system.knows("stored", "ctx")
        for blank in ("", " ", {}, []):
            self.system.receive(stasis_start("stored", blank))
        self.system.receive(stasis_start("new", " "))
        self.assertEqual(
            [context for _, context in self.system.passed()], ["ctx"] * 4 + ["made-1"]
        )

    def test_only_at_the_start(self) -> None:
        """The variable means nothing in other events."""
        for ari_type in ("StasisEnd", "ChannelVarset", "ChannelCreated"):
            self.system.receive(
                event(
                    ari_type,
                    channel={"id": "c", "channelvars": {"CALL_CONTEXT": "given"}},
                )
            )
        self.assertEqual(self.system.values(), [])
        self.assertEqual(self.system.store.entries, {})

    def test_fallback(self) -> None:
        """An unknown main resource: the next known one, `resources` unchanged."""
        self.system.receive(stasis_start("c", "ctx"))
        known, other = {"id": "c"}, {"id": "unknown"}
        bridge = {"id": "b", "channels": ["x", "c"]}
        playback = {"id": "p", "target_uri": "channel:c"}
        for ari_type, fields, resources in (
            ("ChannelEnteredBridge", {"channel": known, "bridge": bridge}, "BRIDGE b"),
            ("ChannelLeftBridge", {"channel": known, "bridge": bridge}, "BRIDGE b"),
            ("Dial", {"peer": other, "caller": known}, ""),
            ("Dial", {"peer": other, "caller": other, "forwarded": known}, ""),
            (
                "BridgeBlindTransfer",
                {"channel": other, "transferee": known},
                "CHANNEL unknown",
            ),
            (
                "BridgeBlindTransfer",
                {"channel": other, "transferee": other, "replace_channel": known},
                "CHANNEL unknown",
            ),
            (
                "BridgeBlindTransfer",
                {"channel": other, "bridge": known},
                "CHANNEL unknown",
            ),
            ("BridgeMerged", {"bridge": bridge, "bridge_from": other}, "BRIDGE b"),
            (
                "BridgeMerged",
                {"bridge": other, "bridge_from": bridge},
                "BRIDGE unknown",
            ),
            ("PlaybackStarted", {"playback": playback}, "PLAYBACK p"),
            ("PlaybackFinished", {"playback": playback}, "PLAYBACK p"),
            (
                "RecordingStarted",
                {"recording": {"name": "r", "target_uri": "channel:c"}},
                "RECORDING r",
            ),
        ):
            self.system.receive(event(ari_type, **fields))
            value = self.system.values()[-1]
            self.assertEqual(value["type"], EVENT_TYPES[ari_type].name)
            self.assertEqual(value["callContext"], "ctx")
            found = " ".join(f"{r['type']} {r['id']}" for r in value["resources"])
            self.assertEqual(found, resources)

    def test_main_resource_first(self) -> None:
        """The other resources do not matter where the main one is known."""
        self.system.knows("b", "bridge-call")
        self.system.knows("c", "channel-call")
        self.system.receive(
            event("ChannelEnteredBridge", bridge={"id": "b"}, channel={"id": "c"})
        )
        self.assertEqual(self.system.passed()[0][1], "bridge-call")

    def test_no_fallback_known(self) -> None:
        """Where none of the resources is known the event is dropped."""
        self.system.receive(event("Dial", peer={"id": "p"}, caller={"id": "c"}))
        self.assertEqual(self.system.counted("unrouted_", event_type="DIAL"), 1)


class ApplicationReplacedTests(EventStreamCase):
    """Another client has taken over an application."""

    def test_ours(self) -> None:
        """Our own application, or none named: the proxy is told, nothing published."""
        self.system.receive(event("ApplicationReplaced", application="demo"))
        self.assertEqual(self.system.replaced, [True])
        self.system.receive(event("ApplicationReplaced"))
        self.assertEqual(self.system.replaced, [True, True])
        self.assertEqual(self.system.values(), [])

    def test_of_another(self) -> None:
        """Another application does not concern us."""
        for other in ("other", "", "Demo", 5, ["demo"], {}):
            self.system.receive(event("ApplicationReplaced", application=other))
        self.assertEqual(self.system.replaced, [])
        counted_ = self.system.counted("", eventType="APPLICATION_REPLACED")
        self.assertEqual(counted_, 6)


class CallMetricsTests(EventStreamCase):
    """Calls that start and end."""

    def test_counted(self) -> None:
        """Every StasisStart and StasisEnd counts, whether it is published or not."""
        self.system.receive(stasis_start("c"), stasis_start(""), stasis_start("d"))
        self.system.receive(channel_event("StasisEnd", "x"), event("StasisEnd"))
        for name, amount in (("started", 3), ("ended", 2)):
            metric = f"ari_proxy_calls_{name}_total"
            found = counted(self.system.metrics, metric, application="demo")
            self.assertEqual(found, amount)

    def test_rest_response(self) -> None:
        """An answer to a REST request is no event: handed on, and counted nowhere."""
        self.system.receive(event("RESTResponse", request_id="1", status_code=200))
        self.assertEqual(self.system.rest_answers[0]["request_id"], "1")
        self.assertEqual(self.system.counted("", eventType="UNKNOWN"), 0)
        self.assertEqual(self.system.publisher.records, [])
