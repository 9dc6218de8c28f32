-- Domain rows: the fields of the mapping, sealed as one text per row under the key of `pk`.
create table patient (rid integer primary key, pk integer not null, ver integer not null, sealed blob not null) strict;
create table appointment (rid integer primary key, pk integer not null, ver integer not null, sealed blob not null) strict;
create table medical_record (rid integer primary key, pk integer not null, ver integer not null, sealed blob not null) strict;
create table document (rid integer primary key, pk integer not null, ver integer not null, sealed blob not null) strict;
create table care_relation (rid integer primary key, pk integer not null, ver integer not null, sealed blob not null) strict;
