"""Databases: which server a container runs, by the name of its image, and how its volumes are backed up well."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Database:
    """One kind of server."""

    name: str
    dump: str | None
    """A command that writes a dump into /dumps; None: it has no simple one."""


POSTGRESQL = Database("PostgreSQL", "pg_dumpall -U postgres -f /dumps/all.sql")
_MYSQL = Database(
    "MySQL",
    "sh -c 'mysqldump -u root -p\"$MYSQL_ROOT_PASSWORD\" --all-databases --single-transaction -r /dumps/all.sql'",
)
_MARIADB = Database(
    "MariaDB",
    "sh -c 'mariadb-dump -u root -p\"$MARIADB_ROOT_PASSWORD\" --all-databases --single-transaction -r /dumps/all.sql'",
)
_REDIS = Database("Redis", "redis-cli SAVE")
_MONGODB = Database("MongoDB", "mongodump --oplog --out=/dumps")
_OTHERS = {
    name: Database(name, None)
    for name in (
        "CouchDB", "ClickHouse", "Elasticsearch", "OpenSearch", "InfluxDB", "Cassandra", "Neo4j", "etcd", "RabbitMQ",
        "CockroachDB", "VictoriaMetrics", "Prometheus", "Qdrant", "Meilisearch",
    )
}  # fmt: skip
_IMAGES: dict[str, Database] = {
    "postgres": POSTGRESQL, "postgresql": POSTGRESQL, "postgis": POSTGRESQL, "timescaledb": POSTGRESQL,
    "timescaledb-ha": POSTGRESQL, "pgvector": POSTGRESQL, "pgvecto-rs": POSTGRESQL, "supabase-postgres": POSTGRESQL,
    "mysql": _MYSQL, "mysql-server": _MYSQL, "percona": _MYSQL, "percona-server": _MYSQL, "mariadb": _MARIADB,
    "redis": _REDIS, "redis-stack": _REDIS, "redis-stack-server": _REDIS, "valkey": _REDIS, "keydb": _REDIS,
    "mongo": _MONGODB, "mongodb": _MONGODB, "mongodb-community-server": _MONGODB, "percona-server-mongodb": _MONGODB,
    "clickhouse-server": _OTHERS["ClickHouse"], "cockroach": _OTHERS["CockroachDB"],
    "victoria-metrics": _OTHERS["VictoriaMetrics"],
} | {name.lower(): found for name, found in _OTHERS.items()}  # fmt: skip


def database_of(image: str) -> Database | None:
    """The server of an image, like `postgres:15` or `example.org/team/mysql@sha256:...`; None for any other."""
    name = re.split("[@:]", image.rpartition("/")[2])[0].lower()
    return _IMAGES.get(name)
