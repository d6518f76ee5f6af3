"""Tells twistd of ``ari-proxy``; loads nothing of it."""

from twisted.application.service import ServiceMaker

ari_proxy = ServiceMaker(
    "ari-proxy",
    "ariproxy.tap",
    "Connects Asterisk's REST interface (ARI) to Apache Kafka.",
    "ari-proxy",
)
