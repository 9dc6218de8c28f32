-- One row per resource. `rid` is random, so the order of the table tells nothing of time.
create table record (
    rid integer primary key,
    rtype integer not null,
    id_token blob not null,      -- blind token of the logical id
    pk integer not null,         -- compartment surrogate whose key seals the capsule
    yr integer,                  -- year of the main clinical date; never of a birth date
    ver integer not null,
    deleted integer not null,
    capsule blob not null,       -- sealed search values; empty when deleted
    terms blob not null,         -- the blind terms as big-endian 64-bit numbers: what `posting` holds for this row
    unique (rtype, id_token)
) strict;
create index record_type on record (rtype, rid, yr) where deleted = 0;
create index record_pk on record (pk, rtype, rid, yr) where deleted = 0;

-- Blind terms of the current versions.
create table posting (
    term integer not null,
    rid integer not null,
    primary key (term, rid)
) strict, without rowid;

-- Every version of every resource; history is this table, a version number is never used twice.
create table record_version (
    rid integer not null,
    ver integer not null,
    pk integer not null,
    head blob not null,          -- sealed header: logical id, time, patients, whether deleted
    sealed blob not null,        -- the sealed sections; empty when deleted
    primary key (rid, ver)
) strict;
-- With the largest rowid in use SQLite picks free rowids at random: the order of the table tells nothing of time.
insert into record_version (rowid, rid, ver, pk, head, sealed) values (9223372036854775807, 0, 0, 0, x'', x'');

-- Logical id of a patient (or a type without patients) -> its surrogates, sealed.
create table compartment (
    token blob primary key,
    sealed blob not null
) strict, without rowid;

-- Things that are unique in the whole server (medical record numbers), blind.
create table claim (
    token blob primary key,
    rid integer not null
) strict, without rowid;
create index claim_rid on claim (rid);

create table counter (
    name text primary key,
    n integer not null
) strict, without rowid;
