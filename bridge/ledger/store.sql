-- The statements of the ledger. "-- name: x" begins the statement that store.py calls x.

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

-- name: schema_4
-- Sequences of the feed, first to last, that were passed over and that nobody has seen a row of.
CREATE TABLE gap (
    first    INTEGER PRIMARY KEY,
    last     INTEGER NOT NULL,
    noted_at REAL NOT NULL,
    counted  INTEGER NOT NULL
) WITHOUT ROWID;

-- name: schema_7
-- What this bridge has delivered, and what both servers held then: the mirror touches nothing else.
CREATE TABLE delivered (
    instance_id   TEXT PRIMARY KEY,
    source_md5    TEXT NOT NULL,
    target_md5    TEXT NOT NULL,
    delivered_at  REAL NOT NULL,
    outdated      INTEGER NOT NULL DEFAULT 0,
    lacking_since REAL,
    released      INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX delivered_lacking ON delivered (lacking_since) WHERE lacking_since IS NOT NULL;

-- name: page_delivered
SELECT * FROM delivered WHERE instance_id > :after ORDER BY instance_id LIMIT :limit;

-- name: schema_9
-- The instances of each study and how each ended last (records.EndedAs). No patient data: identifiers.
CREATE TABLE study (
    number     INTEGER PRIMARY KEY,
    uid        TEXT NOT NULL UNIQUE,
    orthanc_id TEXT NOT NULL,
    first_at   REAL NOT NULL,
    last_at    REAL NOT NULL
);
CREATE INDEX study_by_age ON study (last_at);
CREATE INDEX study_by_orthanc_id ON study (orthanc_id);
-- The instance as 20 bytes: a million of them take 40 MB, not 70.
CREATE TABLE study_instance (
    study    INTEGER NOT NULL,
    instance BLOB NOT NULL,
    ended    INTEGER NOT NULL,
    PRIMARY KEY (study, instance)
) WITHOUT ROWID;
CREATE INDEX study_parked ON study_instance (instance, study) WHERE ended = 2;

-- name: schema_11
-- How often something came to a study since it was found stable and settled, and when it was found
-- so. The last three: what was told of it.
ALTER TABLE study ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE study ADD COLUMN stable_at REAL;
ALTER TABLE study ADD COLUMN told_seen INTEGER NOT NULL DEFAULT 0;
ALTER TABLE study ADD COLUMN told_parked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE study ADD COLUMN told_complete INTEGER NOT NULL DEFAULT 0;
CREATE INDEX study_changed ON study (number) WHERE changed > 0;
-- Whether an event has told that it is parked.
ALTER TABLE parked ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
CREATE INDEX parked_untold ON parked (instance_id) WHERE told = 0;
-- Events that are to be sent, once for each way out. A body has identifiers and numbers only.
CREATE TABLE outbox (
    number     INTEGER PRIMARY KEY,
    event_id   TEXT NOT NULL,
    way        TEXT NOT NULL,
    kind       TEXT NOT NULL,
    body       TEXT NOT NULL,
    created_at REAL NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    next_at    REAL NOT NULL DEFAULT 0,
    problem    TEXT NOT NULL DEFAULT ''
);
CREATE INDEX outbox_due ON outbox (way, next_at, number);
CREATE INDEX outbox_by_age ON outbox (created_at);

-- name: note_study
INSERT INTO study (uid, orthanc_id, first_at, last_at, changed)
VALUES (:uid, :orthanc_id, :at, :at, 1)
ON CONFLICT (uid) DO UPDATE SET
    orthanc_id = CASE excluded.orthanc_id WHEN '' THEN orthanc_id ELSE excluded.orthanc_id END,
    first_at = min(first_at, excluded.first_at),
    -- More than an hour earlier: the clock was ahead before.
    last_at = CASE
        WHEN excluded.last_at < last_at - 3600 THEN excluded.last_at
        ELSE max(last_at, excluded.last_at)
    END,
    changed = changed + 1;

-- name: change_studies_of
-- Before end_study_parked: a study that waits for a parked instance waits for it no more.
UPDATE study SET changed = changed + 1
WHERE number IN (SELECT study FROM study_instance WHERE ended = 2 AND instance = :instance);

-- name: changed_studies
-- Quiet ones: nothing came lately, or the clock was set back since.
SELECT * FROM study
WHERE changed > 0 AND number > :after AND (last_at <= :quiet_since OR last_at > :now)
ORDER BY number LIMIT :limit;

-- name: found_stable
UPDATE study SET changed = 0, stable_at = :stable_at, told_seen = :seen, told_parked = :parked,
    told_complete = :complete
WHERE number = :number AND changed = :changed;

-- name: untold_parked
SELECT instance_id, reason FROM parked WHERE told = 0 ORDER BY instance_id LIMIT :limit;

-- name: told_parked
UPDATE parked SET told = 1 WHERE instance_id = :instance_id;

-- name: told_all_parked
UPDATE parked SET told = 1 WHERE told = 0;

-- name: add_to_outbox
INSERT INTO outbox (event_id, way, kind, body, created_at)
VALUES (:event_id, :way, :kind, :body, :created_at);

-- name: due_in_outbox
-- A time to come that is further away than any pause was written before the clock was set back.
SELECT * FROM outbox WHERE way = :way AND (next_at <= :now OR next_at > :latest)
ORDER BY next_at, number LIMIT 1;

-- name: sent_from_outbox
DELETE FROM outbox WHERE number = :number AND event_id = :event_id;

-- name: put_off_in_outbox
UPDATE outbox SET attempts = attempts + 1, next_at = :next_at, problem = :problem
WHERE number = :number AND event_id = :event_id;

-- name: sum_outbox
SELECT way, count(*), min(created_at) FROM outbox GROUP BY way ORDER BY way;

-- name: outbox_problem
SELECT problem FROM outbox
WHERE problem <> '' AND way IN (SELECT value FROM json_each(:ways)) ORDER BY created_at, number LIMIT 1;

-- name: schema_14
-- When the event was first seen to wait, by the age clock: the other time is of a clock that can be set.
ALTER TABLE outbox ADD COLUMN seen_age REAL;

-- name: see_outbox
-- An age to come is of a state file that was restored since: it begins anew.
UPDATE outbox SET seen_age = :age WHERE seen_age IS NULL OR seen_age > :age;

-- name: drop_old_from_outbox
DELETE FROM outbox WHERE seen_age <= :before;

-- name: drop_most_from_outbox
DELETE FROM outbox WHERE number <= (SELECT number FROM outbox ORDER BY number DESC
                                    LIMIT 1 OFFSET :rows_max);

-- name: count_studies_since
SELECT count(*), coalesce(sum(stable_at IS NOT NULL AND changed = 0), 0),
       coalesce(sum(number IN (SELECT study FROM study_instance WHERE ended = 2)), 0)
FROM study WHERE last_at >= :since;

-- name: note_study_instance
INSERT INTO study_instance (study, instance, ended)
SELECT number, :instance, :ended FROM study WHERE uid = :uid
ON CONFLICT (study, instance) DO UPDATE SET ended = excluded.ended;

-- name: end_study_parked
-- A parked instance came to an end of which no file told: it is not at the source any more.
UPDATE study_instance SET ended = 3 WHERE ended = 2 AND instance = :instance;

-- name: is_placed
SELECT 1 FROM study_instance WHERE ended = 2 AND instance = :instance;

-- name: lacking_everywhere
SELECT instance_id FROM parked UNION ALL SELECT instance_id FROM dropped;

-- name: place_lacking
-- A parked one is parked, however it ended before. The record of a dropped one may be older than
-- how it ended last.
INSERT INTO study_instance (study, instance, ended)
SELECT :number, :instance, 2 WHERE EXISTS (SELECT 1 FROM parked WHERE instance_id = :instance_id)
    OR EXISTS (SELECT 1 FROM dropped WHERE instance_id = :instance_id)
ON CONFLICT (study, instance) DO UPDATE SET ended = 2
    WHERE ended <> 2
      AND EXISTS (SELECT 1 FROM parked WHERE instance_id = :instance_id);

-- name: change_study
UPDATE study SET changed = changed + 1 WHERE number = :number;

-- name: expect_more
-- Something waits that is of it. One that is to be judged anyway stays as it is.
UPDATE study SET changed = 1 WHERE orthanc_id = :orthanc_id AND changed = 0;

-- name: old_studies
SELECT number FROM study WHERE last_at < :before ORDER BY last_at LIMIT :limit;

-- name: forget_study_instances
DELETE FROM study_instance WHERE study = :number;

-- name: forget_study
DELETE FROM study WHERE number = :number;

-- name: page_studies
SELECT number, uid, orthanc_id, first_at, last_at, changed, stable_at FROM study
WHERE (last_at, number) < (:last_at, :number)
  AND (:incomplete = 0 OR number IN (SELECT study FROM study_instance WHERE ended = 2))
ORDER BY last_at DESC, number DESC
LIMIT :limit;

-- name: find_study
SELECT number, uid, orthanc_id, first_at, last_at, changed, stable_at FROM study
WHERE uid = :name OR orthanc_id = :name OR number IN
    (SELECT study FROM study_instance WHERE ended = 2 AND instance = :instance)
ORDER BY last_at DESC LIMIT :limit;

-- name: count_study
SELECT ended, count(*) FROM study_instance WHERE study = :number GROUP BY ended;

-- name: parked_of_study
SELECT instance FROM study_instance
WHERE study = :number AND ended = 2 AND instance > :after ORDER BY instance LIMIT :limit;

-- name: add_delivered
INSERT INTO delivered (instance_id, source_md5, target_md5, delivered_at, outdated, lacking_since,
                       released)
VALUES (:instance_id, :source_md5, :target_md5, :delivered_at, :outdated, :lacking_since, :released)
ON CONFLICT (instance_id) DO UPDATE SET
    source_md5 = excluded.source_md5,
    target_md5 = excluded.target_md5,
    delivered_at = excluded.delivered_at,
    outdated = excluded.outdated,
    lacking_since = excluded.lacking_since,
    -- What retention has let go of stays so until it is delivered anew.
    released = CASE WHEN excluded.delivered_at = delivered.delivered_at
                    THEN max(delivered.released, excluded.released)
                    ELSE excluded.released END;

-- name: outdate_delivered
UPDATE delivered SET outdated = 1 WHERE instance_id = :instance_id;

-- name: list_released
SELECT instance_id FROM delivered
WHERE released AND instance_id > :after
ORDER BY instance_id LIMIT :limit;

-- name: forget_released
DELETE FROM delivered WHERE instance_id = :instance_id AND released;

-- name: forget_delivered
DELETE FROM delivered WHERE instance_id = :instance_id;

-- name: forget_all_delivered
DELETE FROM delivered;

-- name: get_delivered
SELECT * FROM delivered WHERE instance_id = :instance_id;

-- name: count_delivered
SELECT count(*) FROM delivered;

-- name: count_lacking
SELECT count(*) FROM delivered WHERE lacking_since IS NOT NULL;

-- name: list_lacking
SELECT * FROM delivered
WHERE lacking_since IS NOT NULL AND instance_id > :after
ORDER BY instance_id LIMIT :limit;

-- name: release_delivered
UPDATE delivered SET released = 1, lacking_since = NULL WHERE instance_id = :instance_id;

-- name: release_kept
UPDATE delivered SET released = 1, lacking_since = NULL
WHERE instance_id IN (SELECT instance_id FROM kept);

-- name: forget_all_kept
DELETE FROM kept;

-- name: release_all_delivered
UPDATE delivered SET released = 1, lacking_since = NULL, outdated = 0;

-- name: list_gaps
SELECT first, last, noted_at, counted FROM gap ORDER BY first;

-- name: sum_gaps
SELECT count(*), coalesce(sum(last - first + 1), 0), min(noted_at) FROM gap;

-- name: set_gap
INSERT OR REPLACE INTO gap (first, last, noted_at, counted)
VALUES (:first, :last, :noted_at, :counted);

-- name: forget_gap
DELETE FROM gap WHERE first = :first;

-- name: clear_gaps
DELETE FROM gap;

-- name: schema_5
-- The names of both files, and from when an age counts by a clock that nobody sets.
ALTER TABLE kept ADD COLUMN source_file TEXT NOT NULL DEFAULT '';
ALTER TABLE kept ADD COLUMN target_file TEXT NOT NULL DEFAULT '';
ALTER TABLE kept ADD COLUMN aged_from REAL;
DROP INDEX kept_by_age;
CREATE INDEX kept_by_age ON kept (aged_from);
-- Deletions at the source in each minute of the age clock.
CREATE TABLE deletion (
    minute  INTEGER PRIMARY KEY,
    deleted INTEGER NOT NULL
) WITHOUT ROWID;

-- name: schema_6
-- What a person let go of: it has not arrived, and stays on record until it does.
CREATE TABLE dropped (
    instance_id      TEXT PRIMARY KEY,
    sequence         INTEGER,
    changed_at       TEXT NOT NULL,
    reason           TEXT NOT NULL,
    message          TEXT NOT NULL,
    attempts         INTEGER NOT NULL,
    first_failed_at  REAL NOT NULL,
    parked_at        REAL NOT NULL,
    source_syntax    TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    dropped_at       REAL NOT NULL
) WITHOUT ROWID;

-- name: schema_8
-- How often the policy has tried a parked instance again, when it was tried last, and with what.
ALTER TABLE parked ADD COLUMN retries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE parked ADD COLUMN tried_at REAL NOT NULL DEFAULT 0;
ALTER TABLE parked ADD COLUMN bridge_version TEXT NOT NULL DEFAULT '';
ALTER TABLE parked ADD COLUMN codec_versions TEXT NOT NULL DEFAULT '';
UPDATE parked SET tried_at = parked_at;
CREATE INDEX parked_to_retry ON parked (reason, tried_at, retries, codec_versions, bridge_version);

-- name: first_due
SELECT * FROM parked
WHERE reason = :reason
  AND tried_at <= :tried_before
  AND tried_at > :tried_after
  AND retries BETWEEN :retries_min AND :retries_max
  AND (:other_codecs IS NULL OR codec_versions <> :other_codecs)
  AND (:other_bridge IS NULL OR bridge_version <> :other_bridge)
ORDER BY tried_at
LIMIT 1;

-- name: begin_retry
UPDATE parked SET retries = retries + 1, tried_at = :now
WHERE instance_id = :instance_id AND retries = :retries AND tried_at = :tried_at;

-- name: repark
-- Only what is still parked, and was not parked anew meanwhile: a person may have dropped it.
UPDATE parked SET
    reason = :reason,
    message = :message,
    attempts = attempts + :attempts,
    source_syntax = CASE :source_syntax WHEN '' THEN source_syntax ELSE :source_syntax END,
    sop_instance_uid =
        CASE :sop_instance_uid WHEN '' THEN sop_instance_uid ELSE :sop_instance_uid END,
    bridge_version = :bridge_version,
    codec_versions = :codec_versions
WHERE instance_id = :instance_id AND retries = :retries;

-- name: drop
INSERT OR REPLACE INTO dropped
    (instance_id, sequence, changed_at, reason, message, attempts, first_failed_at, parked_at,
     source_syntax, sop_instance_uid, dropped_at)
SELECT instance_id, sequence, changed_at, reason, message, attempts, first_failed_at, parked_at,
       source_syntax, sop_instance_uid, :dropped_at
FROM parked WHERE instance_id = :instance_id;

-- name: forget_dropped
DELETE FROM dropped WHERE instance_id = :instance_id;

-- name: list_dropped
SELECT *, 0 AS retries, parked_at AS tried_at, '' AS bridge_version, '' AS codec_versions
FROM dropped
WHERE (:reason IS NULL OR reason = :reason)
  AND (:parked_before IS NULL OR parked_at <= :parked_before)
  AND instance_id > :after
ORDER BY instance_id
LIMIT :limit;

-- name: count_dropped
SELECT count(*) FROM dropped;

-- name: add_kept
INSERT OR REPLACE INTO kept (instance_id, source_md5, target_md5, delivered_at, missed,
                             source_file, target_file, aged_from)
VALUES (:instance_id, :source_md5, :target_md5, :delivered_at, :missed,
        :source_file, :target_file, :aged_from);

-- name: add_kept_again
INSERT OR IGNORE INTO kept (instance_id, source_md5, target_md5, delivered_at, missed,
                            source_file, target_file, aged_from)
VALUES (:instance_id, :source_md5, :target_md5, :delivered_at, 0,
        :source_file, :target_file, :aged_from);

-- name: begin_ages
UPDATE kept SET aged_from = :now WHERE aged_from IS NULL;

-- name: note_files
UPDATE kept SET source_file = :source_file, target_file = :target_file, aged_from = :aged_from
WHERE instance_id = :instance_id AND delivered_at = :delivered_at;

-- name: count_deletion
INSERT INTO deletion (minute, deleted) VALUES (:minute, 1)
ON CONFLICT (minute) DO UPDATE SET deleted = deleted + 1;

-- name: forget_deletions
DELETE FROM deletion WHERE minute < :minute;

-- name: deletions_since
SELECT coalesce(sum(deleted), 0) FROM deletion WHERE minute >= :minute;

-- name: is_open
SELECT instance_id FROM parked WHERE instance_id = :instance_id
UNION ALL SELECT instance_id FROM attempt WHERE instance_id = :instance_id;

-- name: is_put_aside
SELECT instance_id FROM parked WHERE instance_id = :instance_id
UNION ALL SELECT instance_id FROM dropped WHERE instance_id = :instance_id;

-- name: page_kept
SELECT instance_id, source_md5, target_md5, delivered_at, missed, source_file, target_file,
       aged_from
FROM kept WHERE instance_id > :after ORDER BY instance_id LIMIT :limit;

-- name: schema_12
-- What was delivered, and the target lacked at the last look (2 is MissedAt.TARGET): it is counted
-- each second.
CREATE INDEX kept_missed_at_target ON kept (missed) WHERE missed = 2;

-- name: count_missed_at_target
SELECT count(*) FROM kept WHERE missed = 2;

-- name: forget_kept
DELETE FROM kept WHERE instance_id = :instance_id AND delivered_at = :delivered_at;

-- name: forget_kept_of
DELETE FROM kept WHERE instance_id = :instance_id;

-- name: list_kept
SELECT instance_id, source_md5, target_md5, delivered_at, missed, source_file, target_file,
       aged_from
FROM kept
WHERE aged_from <= :aged_before
  AND instance_id NOT IN (SELECT instance_id FROM parked)
  AND instance_id NOT IN (SELECT instance_id FROM attempt)
ORDER BY aged_from, delivered_at
LIMIT :limit;

-- name: postpone_kept
UPDATE kept SET aged_from = :until, missed = :missed
WHERE instance_id = :instance_id AND delivered_at = :delivered_at;

-- name: get_meta
SELECT value FROM meta WHERE key = :key;

-- name: list_metas
SELECT value FROM meta WHERE substr(key, 1, length(:begin)) = :begin ORDER BY key LIMIT :limit;

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
                    first_failed_at, parked_at, source_syntax, sop_instance_uid,
                    retries, tried_at, bridge_version, codec_versions)
VALUES (:instance_id, :sequence, :changed_at, :reason, :message, :attempts,
        :first_failed_at, :parked_at, :source_syntax, :sop_instance_uid,
        :retries, :tried_at, :bridge_version, :codec_versions)
ON CONFLICT (instance_id) DO UPDATE SET
    sequence = coalesce(excluded.sequence, sequence),
    changed_at = excluded.changed_at,
    reason = excluded.reason,
    message = excluded.message,
    attempts = parked.attempts + excluded.attempts,
    parked_at = excluded.parked_at,
    source_syntax = excluded.source_syntax,
    sop_instance_uid = excluded.sop_instance_uid,
    retries = excluded.retries,
    tried_at = excluded.tried_at,
    bridge_version = excluded.bridge_version,
    codec_versions = excluded.codec_versions,
    told = 0;

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

-- name: newest_parked
-- Of one reason, so that the index serves it however many there are.
SELECT * FROM parked WHERE reason = :reason ORDER BY parked_at DESC LIMIT :limit;

-- name: count_parked
SELECT reason, count(*) FROM parked GROUP BY reason ORDER BY reason;

-- name: schema_10
-- What this bridge has written beside the files at the target: digests of the value that it wrote
-- last, or is about to write, and of the one before. Whatever else is there is somebody else's.
CREATE TABLE carried (
    resource_id TEXT NOT NULL,
    name        TEXT NOT NULL,
    digest      TEXT NOT NULL,
    before      TEXT NOT NULL,
    PRIMARY KEY (resource_id, name)
) WITHOUT ROWID;
-- Resources whose labels, metadata or attachments could not be brought: they are tried again.
CREATE TABLE carry_waiting (
    resource_id TEXT PRIMARY KEY,
    since       REAL NOT NULL,
    tries       INTEGER NOT NULL,
    next_at     REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX carry_waiting_due ON carry_waiting (next_at);

-- name: get_carried
SELECT digest, before FROM carried WHERE resource_id = :resource_id AND name = :name;

-- name: set_carried
INSERT OR REPLACE INTO carried (resource_id, name, digest, before)
VALUES (:resource_id, :name, :digest, :before);

-- name: page_carried
SELECT DISTINCT resource_id FROM carried WHERE resource_id > :after
ORDER BY resource_id LIMIT :limit;

-- name: forget_carried
DELETE FROM carried WHERE resource_id = :resource_id;

-- name: forget_all_carried
DELETE FROM carried;

-- name: clear_carry_waiting
DELETE FROM carry_waiting;

-- name: carry_waits
INSERT INTO carry_waiting (resource_id, since, tries, next_at)
VALUES (:resource_id, :now, 1, :next_at)
ON CONFLICT (resource_id) DO UPDATE SET tries = tries + 1, next_at = excluded.next_at;

-- name: get_carry_waiting
SELECT tries, next_at FROM carry_waiting WHERE resource_id = :resource_id;

-- name: carry_due
-- A time to come that is further away than any pause was written while the clock was ahead.
SELECT resource_id FROM carry_waiting WHERE next_at <= :now OR next_at > :latest
ORDER BY next_at LIMIT :limit;

-- name: carry_ends
DELETE FROM carry_waiting WHERE resource_id = :resource_id;

-- name: sum_carry_waiting
SELECT count(*), min(since) FROM carry_waiting;

-- name: schema_13
-- Deliveries that are to be signed at the source: noted with the record of the delivery.
CREATE TABLE sign_due (
    instance_id TEXT PRIMARY KEY,
    noted_at    REAL NOT NULL,
    tries       INTEGER NOT NULL,
    next_at     REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX sign_due_next ON sign_due (next_at);
CREATE INDEX sign_due_noted ON sign_due (noted_at);

-- name: note_sign
INSERT OR REPLACE INTO sign_due (instance_id, noted_at, tries, next_at)
VALUES (:instance_id, :delivered_at, 0, 0);

-- name: signs_due
SELECT instance_id, noted_at, tries FROM sign_due
WHERE next_at <= :now OR next_at > :latest ORDER BY next_at, instance_id LIMIT :limit;

-- name: postpone_sign
UPDATE sign_due SET tries = tries + 1, next_at = :next_at
WHERE instance_id = :instance_id AND noted_at = :noted_at;

-- name: end_sign
DELETE FROM sign_due WHERE instance_id = :instance_id AND noted_at = :noted_at;

-- name: count_signs
SELECT count(*) FROM (SELECT 1 FROM sign_due LIMIT :limit);

-- name: first_sign
SELECT min(noted_at) FROM sign_due;

-- name: first_sign_in_vain
-- What was never tried in vain is due at 0.
SELECT min(noted_at) FROM sign_due WHERE next_at > 0;

-- name: clear_signs
DELETE FROM sign_due;
