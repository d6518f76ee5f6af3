"""ari-proxy: connects Asterisk's REST interface (ARI) to Apache Kafka."""

__version__ = "2.0.0"
