-- The key database: apart from the data, with its own location, credentials and (short) backups.
create table system_key (
    name text primary key,
    wrapped bytea not null
);

create table data_key (
    pk bigint not null,
    version bigint not null,
    epoch bigint not null,      -- of the KEK that wraps it
    wrapped bytea not null,
    commitment bytea not null,
    primary key (pk, version)
);
