-- The key database: apart from the data, with its own location, credentials and (short) backups.
create table system_key (
    name text primary key,
    wrapped blob not null
) strict, without rowid;

create table data_key (
    pk integer not null,
    version integer not null,
    epoch integer not null,      -- of the KEK that wraps it
    wrapped blob not null,
    commitment blob not null,
    primary key (pk, version)
) strict, without rowid;
