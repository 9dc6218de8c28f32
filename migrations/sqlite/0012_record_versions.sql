-- Searches with many candidates first ask which rows there are in which version: they find both here, without the rows.
drop index record_type;
create index record_type on record (rtype, rid, yr, ver) where deleted = 0;
