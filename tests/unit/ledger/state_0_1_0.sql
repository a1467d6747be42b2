BEGIN TRANSACTION;
CREATE TABLE attempt (
    instance_id     TEXT PRIMARY KEY,
    attempts        INTEGER NOT NULL,
    first_failed_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE kept (
    instance_id  TEXT PRIMARY KEY,
    source_md5   TEXT NOT NULL,
    target_md5   TEXT NOT NULL,
    delivered_at REAL NOT NULL
, missed INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
INSERT INTO "kept" VALUES('1bc4a734-51c32dc1-1a416112-faff9b47-209c85ce','725c5dc9fef317dba88401363d492afb','725c5dc9fef317dba88401363d492afb',1.79605899949158883096e+09,0);
INSERT INTO "kept" VALUES('a49b5020-f6483b1f-cba9b3d9-98ff32d4-0a1a3fbe','90b74b1e7529f6c6c93dfb7df8b88689','90b74b1e7529f6c6c93dfb7df8b88689',1.79605899949660325048e+09,0);
INSERT INTO "kept" VALUES('af8da269-8b95f3f0-18a6fcf2-3452cdd1-39fceed4','d35395a874aa6e9989fb172eafe55b26','d35395a874aa6e9989fb172eafe55b26',1.79605899949431633945e+09,0);
INSERT INTO "kept" VALUES('dc27bbe3-cd379f1e-04f7e8f8-afc2841f-8b3060bb','4facd7c2999ab2c5db12faae17610a31','4facd7c2999ab2c5db12faae17610a31',1.79605899948595881462e+09,0);
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "meta" VALUES('checkpoint','11');
INSERT INTO "meta" VALUES('history_from','0');
INSERT INTO "meta" VALUES('newest_change_at','20261130T171634');
INSERT INTO "meta" VALUES('throughput','{"1.2.840.10008.1.2.1 1.2.840.10008.1.2.1": [4.0, 5368, 0.044]}');
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
INSERT INTO "parked" VALUES('c67463ea-93fb933f-427c253f-c37b106d-7396f438',8,'20261130T171634','undecodable','Frame 1 of 1 (JPEG2000): no j2k code stream.',1,1.79605899949752163889e+09,1.79605899949752163889e+09,'1.2.840.10008.1.2.4.91','1.3.6.1.4.1.5962.1.1.8.1.3.20040826185059.5457');
CREATE TABLE recent (
    sequence    INTEGER PRIMARY KEY,
    instance_id TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "recent" VALUES(1,'dc27bbe3-cd379f1e-04f7e8f8-afc2841f-8b3060bb');
INSERT INTO "recent" VALUES(5,'1bc4a734-51c32dc1-1a416112-faff9b47-209c85ce');
INSERT INTO "recent" VALUES(6,'af8da269-8b95f3f0-18a6fcf2-3452cdd1-39fceed4');
INSERT INTO "recent" VALUES(7,'a49b5020-f6483b1f-cba9b3d9-98ff32d4-0a1a3fbe');
INSERT INTO "recent" VALUES(8,'c67463ea-93fb933f-427c253f-c37b106d-7396f438');
CREATE TABLE settled (
    sequence INTEGER PRIMARY KEY
) WITHOUT ROWID;
CREATE INDEX parked_by_reason ON parked (reason, parked_at);
CREATE INDEX kept_by_age ON kept (delivered_at);
COMMIT;
PRAGMA user_version = 3;
