-- Servers ask every few seconds how many keys were destroyed.
create index data_key_destroyed on data_key (pk) where version = 0;
