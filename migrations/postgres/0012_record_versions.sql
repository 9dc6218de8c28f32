-- SQLite's index of types holds the versions too. Here an update would then have to touch every index of the row, and the
-- rows themselves lie in memory: nothing changes.
select 1;
