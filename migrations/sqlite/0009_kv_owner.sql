-- Whose a small sealed thing is (sessions and authorizations of one user), blind: so that all of them can be found and ended.
alter table kv add column owner blob;
create index kv_owner on kv (space, owner) where owner is not null;
