-- All that PostgreSQL holds for us, in one schema. Text is UTF-8, and whatever is ordered by its bytes is bytea: the
-- order of text depends on the server's locale.
CREATE TABLE IF NOT EXISTS logs (
    partition     text PRIMARY KEY,
    epoch         bigint NOT NULL,
    token         text NOT NULL,               -- made anew by each open(), see postgres_log.py
    owner         text NOT NULL,
    lease_until   double precision NOT NULL,
    last_seq      bigint NOT NULL,
    anchor_seq    bigint NOT NULL,             -- the last frame that truncate() dropped
    anchor_digest bytea NOT NULL,
    pruned_to     bigint NOT NULL              -- no key has two records up to this generation
);
-- A frame's length is kept apart from it, so that damage to one does not hide where the next begins.
CREATE TABLE IF NOT EXISTS appends (
    partition text NOT NULL,
    first_seq bigint NOT NULL,
    last_seq  bigint NOT NULL,
    lengths   bytea NOT NULL,                  -- uint32 little-endian, one a frame
    frames    bytea NOT NULL,
    PRIMARY KEY (partition, first_seq)
);
-- Last appends that failed their check and were cut: for people, nothing reads them.
CREATE TABLE IF NOT EXISTS torn (
    partition text NOT NULL,
    cut_at    double precision NOT NULL,
    why       text NOT NULL,
    first_seq bigint NOT NULL,
    last_seq  bigint NOT NULL,
    lengths   bytea NOT NULL,
    frames    bytea NOT NULL
);
CREATE TABLE IF NOT EXISTS marks (
    partition  text NOT NULL,
    generation bigint NOT NULL,
    seq        bigint NOT NULL,
    digest     bytea NOT NULL,
    version    bigint NOT NULL,
    checksum   bytea NOT NULL,                 -- the caller's, over all records; opaque here
    own_check  bytea NOT NULL,                 -- over the columns before
    PRIMARY KEY (partition, generation)
);
CREATE TABLE IF NOT EXISTS records (
    partition  text NOT NULL,
    key        bytea NOT NULL,
    generation bigint NOT NULL,
    own_check  bytea NOT NULL,                 -- over key, generation and body
    body       bytea,                          -- NULL is a tombstone
    PRIMARY KEY (partition, key, generation)
);
CREATE INDEX IF NOT EXISTS records_by_generation ON records (partition, generation, key);
CREATE TABLE IF NOT EXISTS incidents (
    partition   text NOT NULL,
    incident_id bytea NOT NULL,
    tenant      text NOT NULL,
    service     text NOT NULL,
    state       text NOT NULL,
    severity    bigint NOT NULL,
    type        text NOT NULL,
    created_at  double precision NOT NULL,
    closed_at   double precision NOT NULL,
    updated_at  double precision NOT NULL,
    record      bytea NOT NULL,
    alerts      bytea NOT NULL,
    PRIMARY KEY (partition, incident_id)
);
-- Each index begins with what a page is found by, goes on in its order, and carries what else filters.
CREATE INDEX IF NOT EXISTS incidents_by_time
    ON incidents (partition, tenant, created_at, incident_id) INCLUDE (service, severity, type, updated_at);
CREATE INDEX IF NOT EXISTS incidents_by_service
    ON incidents (partition, tenant, service, created_at, incident_id) INCLUDE (severity, type, updated_at);
CREATE INDEX IF NOT EXISTS incidents_by_severity
    ON incidents (partition, tenant, severity, created_at, incident_id) INCLUDE (service, type, updated_at);
CREATE INDEX IF NOT EXISTS incidents_by_type
    ON incidents (partition, tenant, type, created_at, incident_id) INCLUDE (service, severity, updated_at);
CREATE INDEX IF NOT EXISTS incidents_by_update
    ON incidents (partition, tenant, updated_at, created_at, incident_id) INCLUDE (service, severity, type);
CREATE INDEX IF NOT EXISTS incidents_by_close
    ON incidents (partition, closed_at);
CREATE TABLE IF NOT EXISTS delivery_ids (
    partition text NOT NULL,
    id        bytea NOT NULL,
    at        double precision NOT NULL,
    answer    bytea NOT NULL,
    PRIMARY KEY (partition, id)
);
CREATE INDEX IF NOT EXISTS delivery_ids_by_age ON delivery_ids (partition, at, id);
CREATE TABLE IF NOT EXISTS letters (
    id           bigint PRIMARY KEY,           -- counted in `letter_totals`: never used twice, and never seen out of order
    at           double precision NOT NULL,
    tenant       text NOT NULL,
    door         text NOT NULL,
    reason       text NOT NULL,
    payload      bytea NOT NULL,
    content_type text NOT NULL,
    truncated    boolean NOT NULL,
    size         bigint NOT NULL               -- what it counts against max_bytes
);
CREATE INDEX IF NOT EXISTS letters_by_age ON letters (at);
CREATE TABLE IF NOT EXISTS letter_totals (
    only_row bigint PRIMARY KEY,
    given    bigint NOT NULL,
    kept     bigint NOT NULL,
    bytes    bigint NOT NULL,
    dropped  bigint NOT NULL
);
INSERT INTO letter_totals VALUES (1, 0, 0, 0, 0) ON CONFLICT DO NOTHING;
