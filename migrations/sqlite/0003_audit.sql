-- Segments of audit entries. `n` orders them for scanning; (instance, lane, seq) is a gapless chain per writer: `prev`
-- is the chain hash of the row before, so a missing or altered row shows.
create table audit (
    n integer primary key,
    month integer not null,       -- months since year 0: which audit key seals it; no finer time in clear
    instance integer not null,
    lane integer not null,
    seq integer not null,
    prev blob not null,
    commitment blob not null,   -- over the salted leaves of the entries
    sealed blob not null,
    unique (instance, lane, seq)
) strict;

-- Blind terms of segments: patients, agents, entities.
create table audit_term (
    term integer not null,
    n integer not null,
    primary key (term, n)
) strict, without rowid;

-- Terms of the newest segments, until they are moved into `audit_term`, many at once.
create table audit_pending (
    n integer primary key,
    instance integer not null,
    lane integer not null,
    terms blob not null
) strict;

-- One row per process start.
create table audit_instance (
    instance integer primary key,
    lanes integer not null
) strict;
