-- Audit entries. `n` orders them for scanning; (instance, lane, seq) is a gapless chain per writer: `prev` is the
-- chain hash of the row before, so a missing or altered row shows.
create table audit (
    n bigint generated always as identity primary key,
    id text not null unique,
    month bigint not null,       -- months since year 0: which audit key seals it; no finer time in clear
    instance bigint not null,
    lane bigint not null,
    seq bigint not null,
    prev bytea not null,
    commitment bytea not null,   -- SHA-256(salt || entry)
    sealed bytea not null,
    unique (instance, lane, seq)
);
alter table audit alter column sealed set storage external;

-- Blind terms of entries: patients, agents, entities.
create table audit_term (
    term bigint not null,
    n bigint not null,
    primary key (term, n)
);

-- One row per process start.
create table audit_instance (
    instance bigint primary key,
    lanes bigint not null
);
