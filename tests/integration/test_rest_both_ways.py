"""Every operation of ARI, over HTTP and on the websocket, on the real Asterisk.

Two equal Asterisks are asked the same, one each way; the list of operations is
Asterisk's own (``/ari/api-docs``).
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlencode

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
)

from ariproxy.ari.asterisk import Asterisk
from ariproxy.ari.connecting import AsteriskEndpoints
from ariproxy.ari.messages import AsteriskAnswer, AsteriskRequest
from ariproxy.ari.rest import RestClient, basic_authorization
from ariproxy.ari.socket_rest import SocketRest, carried
from ariproxy.ari.websocket import EventSocket
from ariproxy.interfaces import IAsterisk
from ariproxy.jsontext import parse
from tests.integration.services import asterisk
from tests.integration.services.asterisk import RealAsterisk

APP = "both"
# Nothing has this id: what is done to a real channel takes effect some time later, so
# that two Asterisks would differ by chance.
NOTHING = "nothing"
IDS = {"applicationName": APP}

# Asterisk 22.10 dies of it, both ways.
DEADLY = {("POST", "/bridges/nothing/variable")}

# What is done to resources that are there; first, in this order.
FIRST: list[tuple[str, str, Any]] = [
    ("POST", "/bridges/a-bridge", {"type": "mixing", "name": "n"}),
    ("POST", "/bridges?bridgeId=b&name=x%26y", None),
    ("POST", "/bridges", {"bridgeId": "c", "name": "ä"}),
    ("POST", "/channels/a-channel", {"endpoint": "Local/3001@calls/n", "app": APP}),
    ("POST", "/channels/a-channel", {"endpoint": "Local/3001@calls/n", "app": APP}),
    ("GET", "/channels/a-channel/variable?variable=Y", None),
    ("POST", "/channels/a-channel/variable", {"variable": "Y", "value": "1"}),
    ("GET", "/channels/a-channel/variable?variable=Y", None),
    ("POST", "/channels/no-app", {"endpoint": "Local/3001@calls/n"}),
    ("POST", "/channels/bad", {"endpoint": "Nothing/1", "app": APP}),
    ("POST", "/asterisk/variable?variable=X&value=%C3%A4%2B1", None),
    ("GET", "/asterisk/variable?variable=X", None),
    ("POST", "/bridges/b/variable?variable=Z&value=1", None),
    ("GET", "/bridges/b/variable?variable=Z", None),
    ("POST", "/bridges/b/addChannel?channel=nobody", None),
    ("POST", "/bridges/b/record?name=r&format=none", None),
    ("PUT", "/deviceStates/Stasis:x?deviceState=BUSY", None),
    ("GET", "/deviceStates/Stasis:x", None),
    ("GET", "/nothing/at/all", None),
    ("GET", "/bridges/a%20b", None),
    ("POST", "/bridges/a%20b", None),
    ("GET", "/bridges/a%20b", None),
]

# Different at each asking, or on each machine.
_VARIABLE = re.compile(
    r'"(timestamp|creationtime|asterisk_id|startup_time|last_reload_time|uptime|name'
    r'|technology_version|id|channel|caller_rtp|pid)":("[^"]*"|\d+)'
)


class BothWaysTests(TestCase):
    maxDiff = None
    """The same question has the same answer both ways."""

    skip = asterisk.missing()
    timeout = 120

    def setUp(self) -> None:
        self.pool = HTTPConnectionPool(reactor)
        self.addCleanup(self.pool.closeCachedConnections)

    def asterisk(self) -> RealAsterisk:
        server = RealAsterisk(APP)
        self.addCleanup(server.stop)
        server.start()
        return server

    def http(self, server: RealAsterisk) -> RestClient:
        return RestClient(
            agent=Agent.usingEndpointFactory(
                reactor,
                AsteriskEndpoints(reactor, BrowserLikePolicyForHTTPS(), 1.0),
                pool=self.pool,
            ),
            clock=reactor,
            base=server.url,
            authorization=basic_authorization(server.user, server.password),
            user_agent="ari-proxy",
            timeout=10.0,
            retries=1,
        )

    async def both(self, server: RealAsterisk) -> tuple[Asterisk, SocketRest]:
        """An Asterisk with its websocket open, and found to take requests on it."""
        rest = SocketRest(lambda message: socket.send(message), reactor, 10.0)

        def receive(message: bytes) -> None:
            event = parse(message)
            if event["type"] == "RESTResponse":
                rest.answered(event)

        socket = EventSocket(
            endpoint=HostnameEndpoint(reactor, "127.0.0.1", server.port),
            clock=reactor,
            url=f"ws://127.0.0.1:{server.port}/ari/events?app={APP}",
            authorization=basic_authorization(server.user, server.password),
            user_agent="ari-proxy",
            ping_interval=None,
            jitter=lambda: 0.0,
            receive=receive,
            opened=rest.opened,
            closed=rest.closed,
        )
        socket.start()
        self.addCleanup(socket.stop)
        while not rest.usable:
            await deferLater(reactor, 0.02)
        return Asterisk(self.http(server), rest, only_socket=False), rest

    async def until_entered(self, server: IAsterisk) -> None:
        """Wait until the channel that was made is in the application."""
        probe = AsteriskRequest("POST", "/channels/a-channel/variable?variable=W")
        while (await server.request(probe)).status == 409:
            await deferLater(reactor, 0.02)

    async def until_gone(self, server: IAsterisk, url: str) -> None:
        while (await server.request(AsteriskRequest("GET", url))).status == 200:
            await deferLater(reactor, 0.02)

    def operations(self, server: RealAsterisk) -> list[tuple[str, str, Any]]:
        """Each operation once with what it requires, and once without."""
        found = []
        listed = json.loads(server.request("GET", "/api-docs/resources.json")[1])
        for each in listed["apis"]:
            path = each["path"].replace("{format}", "json")
            document = json.loads(server.request("GET", path)[1])
            for api in document["apis"]:
                for operation in api["operations"]:
                    found += self.asked(api["path"], operation)
        return found

    def asked(self, path: str, operation: Any) -> list[tuple[str, str, Any]]:
        required = {}
        for parameter in operation.get("parameters", []):
            name, kind = parameter["name"], parameter["paramType"]
            if kind == "path":
                path = path.replace(f"{{{name}}}", IDS.get(name, NOTHING))
            elif kind == "query" and parameter.get("required"):
                required[name] = "1" if parameter["dataType"] == "int" else NOTHING
        method = operation["httpMethod"]
        if path == "/events":
            return []  # The websocket itself.
        questions = [(method, path, None)]
        if required:
            questions += [
                (method, f"{path}?{urlencode(required)}", None),
                (method, path, required),
            ]
        return questions

    async def test_burst_over_http(self) -> None:
        """A hundred requests at once, on connections that are not there yet."""
        http = self.http(self.asterisk())
        ping = AsteriskRequest("GET", "/asterisk/ping")
        for _ in range(3):
            asked = [ensureDeferred(http.request(ping)) for _ in range(100)]
            answers = [await each for each in asked]
            self.assertEqual({each.status for each in answers}, {200})
            await self.pool.closeCachedConnections()

    async def test_all(self) -> None:
        """All operations, each with and without what it requires."""
        one, two = self.asterisk(), self.asterisk()
        # Both have the application; only one is asked on its websocket.
        _, _ = await self.both(one)
        over_http = self.http(one)
        on_socket, rest = await self.both(two)
        questions = [*FIRST, *self.operations(one)]
        self.assertGreater(len(questions), 150)
        carried_by_socket = 0
        different = []
        for method, url, body in questions:
            if (method, url) in DEADLY and body is None:
                continue
            text = None if body is None else json.dumps(body).encode()
            request = AsteriskRequest(method, url, text)
            expected = await over_http.request(request)
            carried_by_socket += carried(request) and rest.usable
            found = await on_socket.request(request)
            if shown(found) != shown(expected):
                different.append((method, url, body, shown(expected), shown(found)))
            if (method, url) == ("POST", "/channels/a-channel"):
                await self.until_entered(over_http)
                await self.until_entered(on_socket)
            if method == "DELETE" and expected.status == 204:
                # It takes effect a moment later.
                await self.until_gone(over_http, url)
                await self.until_gone(on_socket, url)
        self.assertEqual("\n".join(map(str, different)), "")
        self.assertGreater(carried_by_socket, 150)


def shown(answer: AsteriskAnswer) -> tuple[int, str | None, str]:
    """What must be the same: status, kind and body, but for what differs always."""
    kind = answer.content_type.partition(";")[0] if answer.content_type else None
    text = _VARIABLE.sub(r'"\1":*', answer.body.decode())
    return answer.status, kind if answer.body else None, text.strip()
