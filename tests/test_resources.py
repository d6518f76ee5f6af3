"""Tests of ariproxy.ari.resources."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.ari.resources import (
    EVENT_TYPES,
    TEMPLATES,
    UNKNOWN_EVENT,
    Resource,
    given_call_context,
    main_id,
    match,
    other_ids,
)

# What call-controllers rely on: name in records, ARI type, id, resource.
EVENT_TABLE = """
BRIDGE_BLIND_TRANSFER BridgeBlindTransfer channel.id CHANNEL
BRIDGE_CREATED BridgeCreated bridge.id BRIDGE
BRIDGE_DESTROYED BridgeDestroyed bridge.id BRIDGE
BRIDGE_MERGED BridgeMerged bridge.id BRIDGE
BRIDGE_VIDEOSOURCE_CHANGED BridgeVideoSourceChanged bridge.id BRIDGE
CHANNEL_CALLERID ChannelCallerId channel.id CHANNEL
CHANNEL_CONNECTED_LINE ChannelConnectedLine channel.id CHANNEL
CHANNEL_CREATED ChannelCreated channel.id CHANNEL
CHANNEL_DESTROYED ChannelDestroyed channel.id CHANNEL
CHANNEL_DIALPLAN ChannelDialplan channel.id CHANNEL
CHANNEL_DTMF_RECEIVED ChannelDtmfReceived channel.id CHANNEL
CHANNEL_ENTERED_BRIDGE ChannelEnteredBridge bridge.id BRIDGE
CHANNEL_HANGUP_REQUEST ChannelHangupRequest channel.id CHANNEL
CHANNEL_HOLD ChannelHold channel.id CHANNEL
CHANNEL_LEFT_BRIDGE ChannelLeftBridge bridge.id BRIDGE
CHANNEL_STATE_CHANGE ChannelStateChange channel.id CHANNEL
CHANNEL_TALKING_FINISHED ChannelTalkingFinished channel.id CHANNEL
CHANNEL_TALKING_STARTED ChannelTalkingStarted channel.id CHANNEL
CHANNEL_TRANSFER ChannelTransfer referred_by.source_channel.id CHANNEL
CHANNEL_UNHOLD ChannelUnhold channel.id CHANNEL
CHANNELVARSET ChannelVarset channel.id CHANNEL
DIAL Dial peer.id -
PLAYBACK_STARTED PlaybackStarted playback.id PLAYBACK
PLAYBACK_CONTINUING PlaybackContinuing playback.id PLAYBACK
PLAYBACK_FINISHED PlaybackFinished playback.id PLAYBACK
RECORDING_STARTED RecordingStarted recording.name RECORDING
RECORDING_FINISHED RecordingFinished recording.name RECORDING
RECORDING_FAILED RecordingFailed recording.name RECORDING
STASIS_START StasisStart channel.id CHANNEL
STASIS_END StasisEnd channel.id CHANNEL
APPLICATION_REPLACED ApplicationReplaced - -
RESPONSE AriResponse - -
"""

# Path, resources in order, kind of the created resource, where its id stands.
TEMPLATE_TABLE = """
/channels - CHANNEL channelId
/channels/create - CHANNEL channelId
/channels/externalMedia - CHANNEL channelId
/channels/{channelId} CHANNEL CHANNEL path
/channels/{channelId}/play CHANNEL PLAYBACK playbackId
/channels/{channelId}/play/{playbackId} PLAYBACK,CHANNEL PLAYBACK path
/channels/{channelId}/record CHANNEL RECORDING name
/channels/{channelId}/snoop CHANNEL SNOOPING snoopId
/channels/{channelId}/snoop/{snoopId} SNOOPING,CHANNEL SNOOPING path
/bridges - BRIDGE bridgeId
/bridges/{bridgeId} BRIDGE BRIDGE path
/bridges/{bridgeId}/play BRIDGE PLAYBACK playbackId
/bridges/{bridgeId}/play/{playbackId} PLAYBACK,BRIDGE PLAYBACK path
/bridges/{bridgeId}/record BRIDGE RECORDING name
/channels/{channelId}/continue CHANNEL - -
/channels/{channelId}/move CHANNEL - -
/channels/{channelId}/redirect CHANNEL - -
/channels/{channelId}/answer CHANNEL - -
/channels/{channelId}/ring CHANNEL - -
/channels/{channelId}/dtmf CHANNEL - -
/channels/{channelId}/mute CHANNEL - -
/channels/{channelId}/hold CHANNEL - -
/channels/{channelId}/moh CHANNEL - -
/channels/{channelId}/silence CHANNEL - -
/channels/{channelId}/variable CHANNEL - -
/channels/{channelId}/dial CHANNEL - -
/channels/{channelId}/rtp_statistics CHANNEL - -
/channels/{channelId}/transfer_progress CHANNEL - -
/bridges/{bridgeId}/addChannel BRIDGE - -
/bridges/{bridgeId}/removeChannel BRIDGE - -
/bridges/{bridgeId}/videoSource BRIDGE - -
/bridges/{bridgeId}/moh BRIDGE - -
/bridges/{bridgeId}/videoSource/{channelId} CHANNEL,BRIDGE - -
/playbacks/{playbackId} PLAYBACK - -
/playbacks/{playbackId}/control PLAYBACK - -
/recordings/stored - - -
/recordings/stored/{recordingName} RECORDING - -
/recordings/stored/{recordingName}/file RECORDING - -
/recordings/stored/{recordingName}/copy RECORDING - -
/recordings/live/{recordingName} RECORDING - -
/recordings/live/{recordingName}/stop RECORDING - -
/recordings/live/{recordingName}/pause RECORDING - -
/recordings/live/{recordingName}/mute RECORDING - -
"""

IDS = {
    "{channelId}": "1724500000.1",
    "{bridgeId}": "b%2F1",
    "{playbackId}": "p-1",
    "{recordingName}": "r 1",
    "{snoopId}": "s-1",
}
PLACEHOLDERS = {
    "CHANNEL": "{channelId}",
    "BRIDGE": "{bridgeId}",
    "PLAYBACK": "{playbackId}",
    "RECORDING": "{recordingName}",
    "SNOOPING": "{snoopId}",
}


def rows(table: str) -> list[list[str | None]]:
    """The cells of a table, ``None`` for a dash."""
    return [
        [None if cell == "-" else cell for cell in line.split()]
        for line in table.strip().splitlines()
    ]


def with_ids(path: str) -> str:
    """A template as a path."""
    for placeholder, identifier in IDS.items():
        path = path.replace(placeholder, identifier)
    return path


class EventTypeTests(SynchronousTestCase):
    """The table of events."""

    def test_table(self) -> None:
        """Every type has the name, the id and the resource of the contract."""
        found = [
            [each.name, ari_type, ".".join(each.id_path or ()) or None, each.kind]
            for ari_type, each in EVENT_TYPES.items()
        ]
        key = str
        self.assertEqual(sorted(found, key=key), sorted(rows(EVENT_TABLE), key=key))
        names = {each.name for each in (*EVENT_TYPES.values(), UNKNOWN_EVENT)}
        self.assertEqual(len(names), 33)

    def test_main_id(self) -> None:
        """Numbers and booleans count as text; what else is no id counts as none."""
        channel_event = EVENT_TYPES["StasisStart"]
        for found, text in (
            ("a", "a"),
            (" a ", " a "),
            (5, "5"),
            (1.5, "1.5"),
            (True, "true"),
            ("", ""),
            (" \t", ""),
            (None, ""),
            ({"id": "a"}, ""),
            (["a"], ""),
        ):
            self.assertEqual(main_id(channel_event, {"channel": {"id": found}}), text)
        for event in ({}, {"channel": None}, {"channel": "a"}, {"channel": ["id"]}):
            self.assertEqual(main_id(channel_event, event), "")
        self.assertEqual(main_id(UNKNOWN_EVENT, {"channel": {"id": "a"}}), "")

    def test_other_ids(self) -> None:
        """The resources by which an event is routed when the first is unknown."""
        channel, bridge = {"id": "c"}, {"id": "b", "channels": ["b1", "b2"]}
        for ari_type, event, ids in (
            ("ChannelEnteredBridge", {"channel": channel, "bridge": bridge}, ["c"]),
            ("ChannelLeftBridge", {"channel": channel, "bridge": bridge}, ["c"]),
            ("Dial", {"caller": {"id": "x"}, "forwarded": {"id": "y"}}, ["x", "y"]),
            (
                "BridgeBlindTransfer",
                {
                    "bridge": bridge,
                    "replace_channel": {"id": "r"},
                    "transferee": {"id": "t"},
                },
                ["t", "r", "b"],
            ),
            (
                "BridgeMerged",
                {"bridge": bridge, "bridge_from": {"id": "f", "channels": ["f1"]}},
                ["f", "b1", "b2", "f1"],
            ),
            ("PlaybackStarted", {"playback": {"target_uri": "channel:a:b"}}, ["a:b"]),
            ("RecordingFailed", {"recording": {"target_uri": "bridge:b"}}, ["b"]),
            ("StasisStart", {"channel": channel, "bridge": bridge}, []),
        ):
            self.assertEqual(list(other_ids(EVENT_TYPES[ari_type], event)), ids)

    def test_other_ids_of_wrong_types(self) -> None:
        """Whatever stands where an id should be, there is no error."""
        for ari_type, event in (
            ("Dial", {"caller": [], "forwarded": {"id": {}}}),
            ("PlaybackStarted", {"playback": {"target_uri": "nothing"}}),
            ("PlaybackStarted", {"playback": {"target_uri": ["a:b"]}}),
            ("PlaybackStarted", {"playback": "a:b"}),
            ("BridgeMerged", {"bridge": {"channels": [None, {}, " ", []]}}),
            ("BridgeMerged", {"bridge": {"channels": {}}, "bridge_from": 1}),
        ):
            self.assertEqual(list(other_ids(EVENT_TYPES[ari_type], event)), [])
        event = {"bridge": {"channels": [1, "a"]}}
        self.assertEqual(
            list(other_ids(EVENT_TYPES["BridgeMerged"], event)), ["1", "a"]
        )

    def test_same_spelling(self) -> None:
        """An id is looked up as it was registered, blanks around it included."""
        event = {"caller": {"id": " a "}}
        self.assertEqual(list(other_ids(EVENT_TYPES["Dial"], event)), [" a "])

    def test_given_call_context(self) -> None:
        """The channel variable counts if it is a text or number that is not blank."""

        def of(value: Any) -> str:
            variables = {"CALL_CONTEXT": value}
            return given_call_context({"channel": {"channelvars": variables}})

        self.assertEqual([of("c"), of(7), of(" c ")], ["c", "7", " c "])
        for value in ("", " ", None, {}, []):
            self.assertEqual(of(value), "")
        for event in ({}, {"channel": {}}, {"channel": {"channelvars": []}}):
            self.assertEqual(given_call_context(event), "")


class MatchTests(SynchronousTestCase):
    """The table of paths."""

    def test_table(self) -> None:
        """Every template of the contract is there, and no other."""
        found = [
            [
                each.path,
                ",".join(r.type for r in match(with_ids(each.path))[1]) or None,
                each.created,
                ("path" if each.id_in_path else each.id_name) or None,
            ]
            for each in TEMPLATES
        ]
        key = str
        self.assertEqual(sorted(found, key=key), sorted(rows(TEMPLATE_TABLE), key=key))

    def test_resources(self) -> None:
        """Resources stand from right to left, with ids as spelled in the path."""
        for path, kinds, _, _ in rows(TEMPLATE_TABLE):
            template, resources = match(with_ids(path))
            self.assertEqual(template.path, path)
            expected = [
                Resource(kind, IDS[PLACEHOLDERS[kind]])
                for kind in (kinds.split(",") if kinds else [])
            ]
            self.assertEqual(resources, expected)

    def test_only_record_has_no_optional_id(self) -> None:
        """Asterisk needs the name of a recording; all other ids it can make itself."""
        needed = {each.path for each in TEMPLATES if not each.id_is_optional}
        self.assertEqual(
            needed, {"/channels/{channelId}/record", "/bridges/{bridgeId}/record"}
        )

    def test_unknown(self) -> None:
        """Every other path names no resource."""
        for path in (
            "",
            "/",
            "channels",
            "x/channels",
            "/channels/",
            "/channels//play",
            "/channels/a/play/",
            "/channels/a/play/p/x",
            "/channels/a/progress",
            "/channels/a/variables",
            "/bridges/a/variable",
            "/bridges/a/variables",
            "/Channels",
            "/recordings",
            "/recordings/live",
            "/recordings/stored/",
            "/playbacks",
            "/applications/demo",
            "/asterisk/info",
            "/events/user/x",
            "/endpoints/PJSIP/100",
            "/{}",
            "/{}/{}",
        ):
            template, resources = match(path)
            self.assertEqual((template.path, resources), ("UNKNOWN", []), path)

    @settings(deadline=None)
    @given(st.text())
    def test_any_text(self, path: str) -> None:
        """No path is an error, and no resource has an empty id."""
        _, resources = match("/" + path)
        self.assertTrue(all(each.id for each in resources))
