-- The statements of the ledger. "-- name: x" begins the statement that ledger.py calls x.

-- name: schema_1
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Sequences above the checkpoint that are settled already: a restart does not redo them.
CREATE TABLE settled (
    sequence INTEGER PRIMARY KEY
) WITHOUT ROWID;

-- Attempts spent on instances that are not settled yet.
CREATE TABLE attempt (
    instance_id     TEXT PRIMARY KEY,
    attempts        INTEGER NOT NULL,
    first_failed_at REAL NOT NULL
) WITHOUT ROWID;

-- Rows of the feed seen lately: they prove that its history is still the same one, and tell a
-- late row from one that was seen.
CREATE TABLE recent (
    sequence    INTEGER PRIMARY KEY,
    instance_id TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE parked (
    instance_id      TEXT PRIMARY KEY,
    sequence         INTEGER,
    changed_at       TEXT NOT NULL,
    reason           TEXT NOT NULL,
    message          TEXT NOT NULL,
    attempts         INTEGER NOT NULL,
    first_failed_at  REAL NOT NULL,
    parked_at        REAL NOT NULL,
    source_syntax    TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX parked_by_reason ON parked (reason, parked_at);

-- name: schema_2
-- What was delivered and proved and still lies at the source: BRIDGE_SOURCE_RETENTION.
CREATE TABLE kept (
    instance_id  TEXT PRIMARY KEY,
    source_md5   TEXT NOT NULL,
    target_md5   TEXT NOT NULL,
    delivered_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX kept_by_age ON kept (delivered_at);

-- name: schema_3
-- Whether a server lacked it when it was looked at last: it is believed the second time.
ALTER TABLE kept ADD COLUMN missed INTEGER NOT NULL DEFAULT 0;

-- name: add_kept
INSERT OR REPLACE INTO kept (instance_id, source_md5, target_md5, delivered_at, missed)
VALUES (:instance_id, :source_md5, :target_md5, :delivered_at, :missed);

-- name: forget_kept
DELETE FROM kept WHERE instance_id = :instance_id AND delivered_at = :delivered_at;

-- name: forget_kept_of
DELETE FROM kept WHERE instance_id = :instance_id;

-- name: list_kept
SELECT instance_id, source_md5, target_md5, delivered_at, missed FROM kept
WHERE delivered_at <= :delivered_before
  AND instance_id NOT IN (SELECT instance_id FROM parked)
  AND instance_id NOT IN (SELECT instance_id FROM attempt)
ORDER BY delivered_at
LIMIT :limit;

-- name: postpone_kept
UPDATE kept SET delivered_at = :until, missed = :missed
WHERE instance_id = :instance_id AND delivered_at = :delivered_at;

-- name: get_meta
SELECT value FROM meta WHERE key = :key;

-- name: set_meta
INSERT INTO meta (key, value) VALUES (:key, :value)
ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: delete_meta
DELETE FROM meta WHERE key = :key;

-- name: list_settled
SELECT sequence FROM settled ORDER BY sequence;

-- name: add_settled
INSERT OR IGNORE INTO settled (sequence) VALUES (:sequence);

-- name: forget_settled
DELETE FROM settled WHERE sequence <= :checkpoint;

-- name: clear_settled
DELETE FROM settled;

-- name: list_attempts
SELECT instance_id, attempts, first_failed_at FROM attempt;

-- name: set_attempt
INSERT INTO attempt (instance_id, attempts, first_failed_at)
VALUES (:instance_id, :attempts, :first_failed_at)
ON CONFLICT (instance_id) DO UPDATE SET attempts = excluded.attempts;

-- name: forget_attempt
DELETE FROM attempt WHERE instance_id = :instance_id;

-- name: list_recent
SELECT sequence, instance_id FROM recent ORDER BY sequence;

-- name: add_recent
INSERT OR REPLACE INTO recent (sequence, instance_id) VALUES (:sequence, :instance_id);

-- name: forget_recent
-- The last ones are kept, however many rows of other types have followed them.
DELETE FROM recent
WHERE sequence < :below
  AND sequence NOT IN (SELECT sequence FROM recent ORDER BY sequence DESC LIMIT :kept);

-- name: clear_recent
DELETE FROM recent;

-- name: park
INSERT INTO parked (instance_id, sequence, changed_at, reason, message, attempts,
                    first_failed_at, parked_at, source_syntax, sop_instance_uid)
VALUES (:instance_id, :sequence, :changed_at, :reason, :message, :attempts,
        :first_failed_at, :parked_at, :source_syntax, :sop_instance_uid)
ON CONFLICT (instance_id) DO UPDATE SET
    sequence = coalesce(excluded.sequence, sequence),
    changed_at = excluded.changed_at,
    reason = excluded.reason,
    message = excluded.message,
    attempts = parked.attempts + excluded.attempts,
    parked_at = excluded.parked_at,
    source_syntax = excluded.source_syntax,
    sop_instance_uid = excluded.sop_instance_uid;

-- name: unpark
DELETE FROM parked WHERE instance_id = :instance_id;

-- name: get_parked
SELECT * FROM parked WHERE instance_id = :instance_id;

-- name: list_parked
SELECT * FROM parked
WHERE (:reason IS NULL OR reason = :reason)
  AND (:parked_before IS NULL OR parked_at <= :parked_before)
  AND instance_id > :after
ORDER BY instance_id
LIMIT :limit;

-- name: count_parked
SELECT reason, count(*) FROM parked GROUP BY reason ORDER BY reason;
