-- What belongs to an owner is also read in pages, in the order of its tokens.
drop index kv_owner;
create index kv_owner on kv (space, owner, token) where owner is not null;
