-- What only PostgreSQL itself knows: rows out of line are not compressed (frames and records are MessagePack, and pglz
-- costs more than the disk it saves), and a row that changes with each append finds room on its own page.
ALTER TABLE appends ALTER COLUMN frames SET STORAGE EXTERNAL;
ALTER TABLE records ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE logs SET (fillfactor = 20);
ALTER TABLE letter_totals SET (fillfactor = 20);
