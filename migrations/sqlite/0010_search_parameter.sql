-- Search parameters that the site defines, and how far resources that were there before have been gone through. One
-- that is gone has no row any more; its number is never given again.
create table search_parameter (
    n integer primary key,        -- its number: part of terms and of capsules
    state integer not null,       -- 0 being indexed, 1 ready, 2 being taken away
    sealed blob not null,       -- what it is
    rtype integer not null,       -- type and row gone through last
    rid integer not null,
    done integer not null,
    total integer not null        -- -1: not counted yet
) strict;
