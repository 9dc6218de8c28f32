-- Small sealed things of other rooms (OAuth clients, one-time token ids, settings): `space` says whose, `token` is blind.
create table kv (
    space text not null,
    token blob not null,
    sealed blob not null,
    expires integer,             -- milliseconds since 1970, for what may be swept
    primary key (space, token)
) strict, without rowid;
create index kv_expires on kv (expires) where expires is not null;
