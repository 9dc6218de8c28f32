-- Search parameters that the site defines, and how far resources that were there before have been gone through. One
-- that is gone has no row any more; its number is never given again.
create table search_parameter (
    n bigint primary key,        -- its number: part of terms and of capsules
    state bigint not null,       -- 0 being indexed, 1 ready, 2 being taken away
    sealed bytea not null,       -- what it is
    rtype bigint not null,       -- type and row gone through last
    rid bigint not null,
    done bigint not null,
    total bigint not null        -- -1: not counted yet
);
