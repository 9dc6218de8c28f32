//! Small keyed values of other rooms (OAuth clients, one-time token ids, settings) and counters. The caller seals the
//! values and blinds the keys; nothing here is readable.

use super::Store;
use super::db::Param;
use super::lane::{Answer, Work};
use super::small::{Life, Small, SmallAnswer};
use crate::error::{Error, Result};
use crate::world::Instant;

impl Store {
    /// The value under a key; what has expired counts as absent.
    pub async fn kv_get(&self, space: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let sql = "select sealed from kv where space = $1 and token = $2 and (expires is null or expires >= $3)";
        let params =
            vec![Param::Text(space.to_owned()), Param::Bytes(key.to_vec()), Param::Int(self.inner.world.now().0)];
        let rows = self.inner.lookups.rows(sql, params).await?;
        Ok(rows.first().map(|row| row.bytes(0).map(<[u8]>::to_vec)).transpose()?)
    }

    /// Sets a value for good; durable when this returns.
    pub async fn kv_put(&self, space: &'static str, key: &[u8], value: &[u8]) -> Result<()> {
        self.kv_put_for(space, key, value, Life::default()).await
    }

    /// Sets a value that has an end or an owner; durable when this returns.
    pub async fn kv_put_for(&self, space: &'static str, key: &[u8], value: &[u8], life: Life) -> Result<()> {
        self.small(Small::KvPut { space, token: key.to_vec(), sealed: value.to_vec(), life }).await.map(drop)
    }

    /// Changes a value if it is still `old`, as [`Store::kv_get`] gave it. False: another was first, or it is gone. Of
    /// many who try at once, on any server, one gets true.
    pub async fn kv_swap(
        &self,
        space: &'static str,
        key: &[u8],
        old: &[u8],
        value: &[u8],
        expires: Option<Instant>,
    ) -> Result<bool> {
        let (token, old, sealed) = (key.to_vec(), old.to_vec(), value.to_vec());
        Ok(self.touched(Small::KvSwap { space, token, old, sealed, expires }).await? == 1)
    }

    /// Everything of an owner in a space, as (key, value), ordered by key.
    pub async fn kv_list_owned(&self, space: &'static str, owner: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let sql = "select token, sealed from kv where space = $1 and owner = $2 and (expires is null or expires >= $3) \
                   order by token";
        let now = Param::Int(self.inner.world.now().0);
        let params = vec![Param::Text(space.to_owned()), Param::Bytes(owner.to_vec()), now];
        let rows = self.inner.lookups.rows(sql, params).await?;
        rows.iter().map(|row| Ok((row.bytes(0)?.to_vec(), row.bytes(1)?.to_vec()))).collect()
    }

    /// Deletes everything of an owner in a space; gives how many rows went.
    pub async fn kv_delete_owned(&self, space: &'static str, owner: &[u8]) -> Result<u64> {
        self.touched(Small::KvDeleteOwned { space, owner: owner.to_vec() }).await
    }

    /// Sets a value unless there is one that has not expired. True: it was absent and is durable now; of many who try
    /// at once, on any server, exactly one gets true.
    pub async fn kv_insert_new(
        &self,
        space: &'static str,
        key: &[u8],
        value: &[u8],
        expires: Option<Instant>,
    ) -> Result<bool> {
        self.kv_insert_new_for(space, key, value, Life { expires, owner: None }).await
    }

    /// The same with an owner.
    pub async fn kv_insert_new_for(&self, space: &'static str, key: &[u8], value: &[u8], life: Life) -> Result<bool> {
        let now = self.inner.world.now();
        let (token, sealed) = (key.to_vec(), value.to_vec());
        Ok(self.touched(Small::KvInsertNew { space, token, sealed, life, now }).await? == 1)
    }

    /// Everything of a space, as (key, value), ordered by key.
    pub async fn kv_list(&self, space: &'static str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let sql = "select token, sealed from kv where space = $1 and (expires is null or expires >= $2) order by token";
        let params = vec![Param::Text(space.to_owned()), Param::Int(self.inner.world.now().0)];
        let rows = self.inner.lookups.rows(sql, params).await?;
        rows.iter().map(|row| Ok((row.bytes(0)?.to_vec(), row.bytes(1)?.to_vec()))).collect()
    }

    /// At most `limit` values of a space, or of an owner in it, whose keys come after this one; as (key, value), ordered
    /// by key.
    pub async fn kv_page(
        &self,
        space: &'static str,
        owner: Option<&[u8]>,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let (of_owner, mut params) = self.of_owner(space, owner);
        params.push(Param::Bytes(after.to_vec()));
        params.push(Param::Int(i64::try_from(limit).unwrap_or(i64::MAX)));
        let (after, limit) = (params.len() - 1, params.len());
        let sql =
            format!("select token, sealed from kv where {of_owner} and token > ${after} order by token limit ${limit}");
        let rows = self.inner.lookups.rows(&sql, params).await?;
        rows.iter().map(|row| Ok((row.bytes(0)?.to_vec(), row.bytes(1)?.to_vec()))).collect()
    }

    /// How many values of a space there are, or of an owner in it.
    pub async fn kv_count(&self, space: &'static str, owner: Option<&[u8]>) -> Result<usize> {
        let (of_owner, params) = self.of_owner(space, owner);
        let rows = self.inner.lookups.rows(&format!("select count(*) from kv where {of_owner}"), params).await?;
        let count = rows.first().map(|row| row.int(0)).transpose()?.unwrap_or(0);
        usize::try_from(count).map_err(Error::internal)
    }

    /// The condition on rows that stand in a space, of one owner or of all.
    fn of_owner(&self, space: &'static str, owner: Option<&[u8]>) -> (&'static str, Vec<Param>) {
        let mut params = vec![Param::Text(space.to_owned()), Param::Int(self.inner.world.now().0)];
        let Some(owner) = owner else { return ("space = $1 and (expires is null or expires >= $2)", params) };
        params.push(Param::Bytes(owner.to_vec()));
        ("space = $1 and (expires is null or expires >= $2) and owner = $3", params)
    }

    /// True: it was there. Of many who try at once, on any server, one gets true.
    pub async fn kv_delete(&self, space: &'static str, key: &[u8]) -> Result<bool> {
        Ok(self.touched(Small::KvDelete { space, token: key.to_vec() }).await? > 0)
    }

    /// Sweeps what expired before `now`; gives how many rows went.
    pub async fn kv_expire(&self, now: Instant) -> Result<u64> {
        self.touched(Small::KvExpire { now }).await
    }

    /// The next number of a counter, from 1; never given twice, by any server. A number may stay unused.
    pub async fn next_number(&self, counter: &'static str) -> Result<u64> {
        match self.small(Small::Count(counter)).await? {
            SmallAnswer::Number(n) => Ok(n),
            _ => Err(wrong_answer()),
        }
    }

    /// For tests: as if nothing had ever been kept in a space.
    #[cfg(test)]
    pub(crate) async fn kv_delete_space(&self, space: &'static str) {
        for (key, _) in self.kv_list(space).await.expect("lists") {
            self.kv_delete(space, &key).await.expect("deletes");
        }
    }

    async fn touched(&self, small: Small) -> Result<u64> {
        match self.small(small).await? {
            SmallAnswer::Touched(rows) => Ok(rows),
            _ => Err(wrong_answer()),
        }
    }

    pub(super) async fn small(&self, small: Small) -> Result<SmallAnswer> {
        match self.inner.lanes.submit(Work::Small(small)).await? {
            Answer::Small(answer) => Ok(answer),
            Answer::Receipt(_) | Answer::Settled => Err(wrong_answer()),
        }
    }
}

pub(super) fn wrong_answer() -> Error {
    Error::internal("a lane answered another question")
}
