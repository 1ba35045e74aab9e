-- The archive by partition and month, see postgres_archive_months.py. What was archived before stays in the table it is in:
-- to attach that, the server would read all of it first, and nobody could list incidents meanwhile. Renaming waits for
-- who reads it, and who comes meanwhile waits behind; so not for long, and the next connection tries again.
SET LOCAL lock_timeout = '5s';
ALTER TABLE incidents RENAME TO incidents_before_months;
CREATE TABLE incidents_by_month (LIKE incidents_before_months INCLUDING ALL) PARTITION BY LIST (partition);
CREATE VIEW incidents AS
    SELECT * FROM incidents_before_months UNION ALL SELECT * FROM incidents_by_month;
