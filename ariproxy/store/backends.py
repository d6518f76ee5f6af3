"""The store that a configuration asks for. Drivers are loaded only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ariproxy.config import Config
from ariproxy.interfaces import IStore, IWorkers

DEFAULT_TTL = 6 * 3600.0
"""Seconds that an entry is kept where the configuration says nothing."""


def store_ttl(config: Config) -> float:
    """Seconds that the configured store keeps an entry."""
    if config.persistence_store == "sqlite":
        return config.sqlite.ttl
    if config.persistence_store == "redis" and config.redis.ttl is not None:
        return config.redis.ttl
    return DEFAULT_TTL


def open_store(
    config: Config,
    reactor: Any,
    now: Callable[[], float],
    node: str,
    workers: IWorkers,
) -> IStore:
    """The store; it is not connected yet.

    :param now: seconds since 1970.
    :param node: names this machine in the key of the health check.
    :param workers: one thread, for a driver that blocks.

    Raises ``ConfigError`` where the settings of the driver cannot be used.
    """
    if config.persistence_store == "memory":
        from ariproxy.store.memory import MemoryStore

        return MemoryStore(store_ttl(config), now)
    if config.persistence_store == "sqlite":
        from ariproxy.store.sqlite import SqliteStore

        return SqliteStore(config.sqlite.path, store_ttl(config), now, workers)
    node_name = f"{config.name}-{node}"
    if config.persistence_store == "cassandra":
        from ariproxy.store.cassandra import open_cassandra
        from ariproxy.store.cassandra_settings import cassandra_settings

        settings = cassandra_settings(config.datastax)
        return open_cassandra(settings, reactor, store_ttl(config), workers, node_name)
    from ariproxy.store.redis import TIMEOUT, RedisStore
    from ariproxy.tls import client_tls

    redis = config.redis
    return RedisStore(
        reactor,
        redis.host,
        redis.port,
        redis.db,
        store_ttl(config),
        redis.username,
        redis.password.reveal() if redis.password else None,
        client_tls(redis.host, redis.ca, "service.redis.ca") if redis.tls else None,
        TIMEOUT,
        node_name,
    )
