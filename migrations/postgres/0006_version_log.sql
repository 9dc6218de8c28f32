-- The versions of all resources in the order in which they were committed, for the history of a type and of the whole
-- server. What a line is about is sealed: nothing joins it to a row of `record` or `record_version`.
create table version_log (
    n bigint generated always as identity primary key,
    rtype bigint not null,
    sealed bytea not null        -- row, version and time
);
create index version_log_type on version_log (rtype, n);
