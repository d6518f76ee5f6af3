"""What the simulated Asterisk answers, over HTTP and on the websocket."""

from __future__ import annotations

import json

import msgspec
from msgspec import Struct


def expected_status(method: str, url: str) -> int:
    """What it answers to a request below ``/ari``."""
    if "/gone" in url:
        return 404
    if "/play" in url:
        return 201
    return 200 if method == "GET" else 204


_BODIES = {
    200: b'{"id":"1795535000.0","name":"PJSIP/trunk-00000000","state":"Up",'
    b'"caller":{"name":"","number":"+49305550000"},"connected":{"name":"",'
    b'"number":""},"accountcode":"","dialplan":{"context":"from-trunk",'
    b'"exten":"1000","priority":3,"app_name":"Stasis","app_data":"bench"},'
    b'"creationtime":"2026-11-24T15:54:58.001+0000","language":"en"}',
    201: b'{"id":"p","media_uri":"sound:hello","target_uri":"channel:1795535000.0",'
    b'"language":"en","state":"queued"}',
    204: b"",
    404: b'{"message":"Channel not found"}',
}
_REASONS = {200: "OK", 201: "Created", 204: "No Content", 404: "Not Found"}
_ANSWERS = {
    status: (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nServer: Asterisk\r\n"
        "Date: Tue, 24 Nov 2026 15:55:17 GMT\r\n"
        "Cache-Control: no-cache, no-store\r\nContent-type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    + body
    for status, body in _BODIES.items()
}


def http_answer(line: bytes) -> bytes:
    """The answer to a request line."""
    method, url, _ = line.decode("latin-1").split(" ")
    return _ANSWERS[expected_status(method, url)]


class _RestRequest(Struct):
    request_id: str
    method: str
    uri: str


_decode = msgspec.json.Decoder(_RestRequest).decode


def _ending(status: int) -> bytes:
    """The fields of a RESTResponse that depend on the status alone."""
    fields = {"status_code": status, "reason_phrase": _REASONS[status]}
    if body := _BODIES[status]:
        fields |= {"content_type": "application/json", "message_body": body.decode()}
    fields["application"] = "bench"
    return b'",' + json.dumps(fields, separators=(",", ":")).encode()[1:]


_ENDINGS = {status: _ending(status) for status in _BODIES}


def websocket_answer(message: bytes) -> bytes:
    """The RESTResponse to a RESTRequest."""
    request = _decode(message)
    return (
        b'{"type":"RESTResponse","transaction_id":"ari-proxy","request_id":"%s","uri":"%s'
        % (request.request_id.encode(), request.uri.encode())
        + _ENDINGS[expected_status(request.method, f"/{request.uri}")]
    )
