"""Kafka: records, settings, and the clients behind IPublisher and IRecordSource."""
