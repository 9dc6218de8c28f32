-- One row per resource. `rid` is random, so the keys tell nothing of time (the heap does: see docs/leakage.md).
create table record (
    rid bigint primary key,
    rtype bigint not null,
    id_token bytea not null,     -- blind token of the logical id
    pk bigint not null,          -- compartment surrogate whose key seals the capsule
    yr bigint,                   -- year of the main clinical date; never of a birth date
    ver bigint not null,
    deleted bigint not null,
    capsule bytea not null,      -- sealed search values; empty when deleted
    terms bigint[] not null,     -- blind terms of the current version
    unique (rtype, id_token)
);
create index record_type on record (rtype, rid, yr) where deleted = 0;
create index record_pk on record (pk, rtype, rid, yr) where deleted = 0;
-- A pending list would stall an interactive insert for a second and more when it is flushed.
create index record_terms on record using gin (terms) with (fastupdate = off);
alter table record alter column terms set statistics 1000;
-- Sealed bytes do not compress: trying costs time on every write.
alter table record alter column capsule set storage external;

-- Every version of every resource; history is this table, a version number is never used twice.
create table record_version (
    rid bigint not null,
    ver bigint not null,
    pk bigint not null,
    head bytea not null,         -- sealed header: logical id, time, patients, whether deleted
    sealed bytea not null,       -- the sealed sections; empty when deleted
    primary key (rid, ver)
);
alter table record_version alter column sealed set storage external;

-- Logical id of a patient (or a type without patients) -> its surrogates, sealed.
create table compartment (
    token bytea primary key,
    sealed bytea not null
);

-- Things that are unique in the whole server (medical record numbers), blind.
create table claim (
    token bytea primary key,
    rid bigint not null
);
create index claim_rid on claim (rid);

create table counter (
    name text primary key,
    n bigint not null
);
