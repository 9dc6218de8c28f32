-- Segments of audit entries. `n` orders them for scanning; (instance, lane, seq) is a gapless chain per writer: `prev`
-- is the chain hash of the row before, so a missing or altered row shows.
create table audit (
    n bigint generated always as identity primary key,
    month bigint not null,       -- months since year 0: which audit key seals it; no finer time in clear
    instance bigint not null,
    lane bigint not null,
    seq bigint not null,
    prev bytea not null,
    commitment bytea not null,   -- over the salted leaves of the entries
    sealed bytea not null,
    unique (instance, lane, seq)
);
alter table audit alter column sealed set storage external;

-- Blind terms of segments: patients, agents, entities.
create table audit_term (
    term bigint not null,
    n bigint not null,
    primary key (term, n)
);

-- Terms of the newest segments, until they are moved into `audit_term`, many at once.
create table audit_pending (
    n bigint primary key,
    instance bigint not null,
    lane bigint not null,
    terms bigint[] not null
);

-- One row per process start.
create table audit_instance (
    instance bigint primary key,
    lanes bigint not null
);
