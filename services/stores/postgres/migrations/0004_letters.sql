-- How a dead letter came, so that it can be read again.
ALTER TABLE letters ADD COLUMN IF NOT EXISTS sender text NOT NULL DEFAULT '';
ALTER TABLE letters ADD COLUMN IF NOT EXISTS place text NOT NULL DEFAULT '';
ALTER TABLE letters ADD COLUMN IF NOT EXISTS replays bigint NOT NULL DEFAULT 0;
ALTER TABLE letters ADD COLUMN IF NOT EXISTS tried_at double precision NOT NULL DEFAULT 0;
ALTER TABLE letters ADD COLUMN IF NOT EXISTS request bytea NOT NULL DEFAULT '';
