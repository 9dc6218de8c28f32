-- Domain rows: the fields of the mapping, sealed as one text per row under the key of `pk`.
create table patient (rid bigint primary key, pk bigint not null, ver bigint not null, sealed bytea not null);
create table appointment (rid bigint primary key, pk bigint not null, ver bigint not null, sealed bytea not null);
create table medical_record (rid bigint primary key, pk bigint not null, ver bigint not null, sealed bytea not null);
create table document (rid bigint primary key, pk bigint not null, ver bigint not null, sealed bytea not null);
create table care_relation (rid bigint primary key, pk bigint not null, ver bigint not null, sealed bytea not null);
