-- Small sealed things of other rooms (OAuth clients, one-time token ids, settings): `space` says whose, `token` is blind.
create table kv (
    space text not null,
    token bytea not null,
    sealed bytea not null,
    expires bigint,             -- milliseconds since 1970, for what may be swept
    primary key (space, token)
);
create index kv_expires on kv (expires) where expires is not null;
