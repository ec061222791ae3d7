"""The SQLite database."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azureml_emulator.errors import EmulatorError

SCHEMA_VERSION = "1"

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS experiments (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, doc TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL UNIQUE, experiment_id TEXT NOT NULL,
    parent_run_id TEXT, doc TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS runs_by_experiment ON runs (experiment_id);
CREATE INDEX IF NOT EXISTS runs_by_parent ON runs (parent_run_id);
CREATE TABLE IF NOT EXISTS metrics (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, metric_id TEXT NOT NULL, name TEXT NOT NULL,
    columns TEXT NOT NULL, properties TEXT NOT NULL, point TEXT NOT NULL, UNIQUE (run_id, metric_id));
CREATE INDEX IF NOT EXISTS metrics_by_name ON metrics (run_id, name);
CREATE TABLE IF NOT EXISTS blobs (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, path TEXT NOT NULL, etag TEXT NOT NULL, modified REAL NOT NULL);
CREATE TABLE IF NOT EXISTS artifacts (
    origin TEXT NOT NULL, container TEXT NOT NULL, path TEXT NOT NULL, blob_key TEXT NOT NULL, created TEXT NOT NULL,
    PRIMARY KEY (origin, container, path));
CREATE TABLE IF NOT EXISTS snapshots (id TEXT PRIMARY KEY, doc TEXT NOT NULL, created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS snapshot_files (
    snapshot_id TEXT NOT NULL, path TEXT NOT NULL, blob_key TEXT NOT NULL, PRIMARY KEY (snapshot_id, path));
CREATE TABLE IF NOT EXISTS assets (id TEXT PRIMARY KEY, doc TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS model_versions (name TEXT PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS models (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, version INTEGER NOT NULL, doc TEXT NOT NULL,
    UNIQUE (name, version));
CREATE TABLE IF NOT EXISTS computes (name TEXT PRIMARY KEY, doc TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS operations (id TEXT PRIMARY KEY, doc TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, doc TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS environments (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, version TEXT NOT NULL, doc TEXT NOT NULL,
    UNIQUE (name, version));
CREATE TABLE IF NOT EXISTS environment_labels (
    name TEXT NOT NULL, label TEXT NOT NULL, version TEXT NOT NULL, PRIMARY KEY (name, label));
CREATE TABLE IF NOT EXISTS upload_containers (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS blob_metadata (blob_key TEXT PRIMARY KEY, doc TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS asset_versions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
    properties TEXT NOT NULL, detail TEXT NOT NULL, created TEXT NOT NULL, UNIQUE (kind, name, version));
CREATE TABLE IF NOT EXISTS command_jobs (name TEXT PRIMARY KEY, doc TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sweeps (run_id TEXT PRIMARY KEY, active INTEGER NOT NULL, doc TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS webservices (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, doc TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS webservice_operations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, doc TEXT NOT NULL);
"""


class Database:
    """One connection, shared by all threads under a lock.

    A statement takes microseconds here, so a lock costs less than the errors that concurrent SQLite writers see.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        # WAL with NORMAL loses nothing when the process is killed; only a power cut can undo the last commits.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(SCHEMA)
        found = self.meta("schema", SCHEMA_VERSION)
        if found != SCHEMA_VERSION:
            raise EmulatorError(
                f"{path} was written by another version of the emulator (schema {found}).",
                "Use an empty state directory.",
            )

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all of the block or nothing. May be nested; the outermost one decides."""
        with self._lock:
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._connection.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self._connection.execute("COMMIT")

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """Run one statement."""
        with self._lock:
            return self._connection.execute(sql, parameters)

    def one(self, sql: str, *parameters: Any) -> sqlite3.Row | None:
        """Return the first row, or None."""
        with self._lock:
            row: sqlite3.Row | None = self._connection.execute(sql, parameters).fetchone()
            return row

    def all(self, sql: str, *parameters: Any) -> list[sqlite3.Row]:
        """Return every row."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def meta(self, key: str, default: str) -> str:
        """Return a value that belongs to the whole state; ``default`` is stored on first use."""
        self.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", key, default)
        row = self.one("SELECT value FROM meta WHERE key = ?", key)
        assert row is not None
        return str(row["value"])

    def set_meta(self, key: str, value: str) -> None:
        """Set such a value."""
        self.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)
