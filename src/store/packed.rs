//! Many rows as one value. The driver of SQLite hands every row from its thread to ours, with an allocation for each
//! column: for the candidates of a search that costs more than finding them. So SQLite joins the rows into one value,
//! which is cut apart here. PostgreSQL sends rows by the packet anyway.
//!
//! A field is its length, a colon and its bytes (a number as text); without a length it is null.

use std::ops::Range;
use std::sync::Arc;

use super::db::{Fault, Row};

/// A row cut from what [`joined`] gives.
pub struct PackedRow {
    all: Arc<[u8]>,
    fields: Vec<Option<Range<usize>>>,
}

/// What a field may be read as.
pub trait Field<'r>: Sized {
    /// None: it is not of this shape.
    fn of(bytes: Option<&'r [u8]>) -> Option<Self>;
}

/// A query that gives the rows of `sql`, whose columns are numbers and blobs, as one blob; null when there is none.
pub fn joined(sql: &str, columns: usize) -> String {
    let each = |text: fn(usize) -> String| (0..columns).map(text).collect::<Vec<_>>().join(", ");
    let (names, fields) = (each(|n| format!("c{n}")), each(|n| format!("length(c{n}), ':', c{n}")));
    format!("with c({names}) as ({sql}) select cast(group_concat(concat({fields}), '') as blob) from c")
}

/// A query that gives the rows of `sql`, all of whose columns are numbers and none null, as one row: on SQLite as text, on
/// PostgreSQL as an array of each column.
pub fn numbered(postgres: bool, sql: &str, columns: usize) -> String {
    let each = |text: fn(usize) -> String, between: &str| (0..columns).map(text).collect::<Vec<_>>().join(between);
    let names = each(|n| format!("c{n}"), ", ");
    match postgres {
        true => {
            let arrays = each(|n| format!("coalesce(array_agg(c{n}), '{{}}'::bigint[])"), ", ");
            format!("select {arrays} from ({sql}) as c({names})")
        }
        false => {
            let fields = each(|n| format!("c{n}"), ", ',', ");
            format!("with c({names}) as ({sql}) select group_concat(concat({fields}), ',') from c")
        }
    }
}

/// The numbers of [`numbered`], row by row; None when they are no rows of so many.
pub fn rows_of<const N: usize>(row: &Row) -> Result<Option<Vec<[i64; N]>>, Fault> {
    if let Row::Postgres(_) = row {
        let columns = (0..N).map(|n| row.ints(n)).collect::<Result<Vec<_>, _>>()?;
        let length = columns.first().map_or(0, Vec::len);
        let even = columns.iter().all(|column| column.len() == length);
        return Ok(even.then(|| (0..length).map(|at| std::array::from_fn(|n| columns[n][at])).collect()));
    }
    let Some(text) = row.opt_text(0)? else { return Ok(Some(Vec::new())) };
    let numbers = text.split(',').map(|number| number.parse().ok()).collect::<Option<Vec<i64>>>();
    Ok(numbers.and_then(|numbers| {
        let (rows, rest) = numbers.as_chunks::<N>();
        rest.is_empty().then(|| rows.to_vec())
    }))
}

/// The rows; None when the bytes are cut off or no rows of so many fields.
pub fn parted(all: &[u8], columns: usize) -> Option<Vec<PackedRow>> {
    let all: Arc<[u8]> = all.into();
    let (mut rows, mut at) = (Vec::new(), 0);
    while at < all.len() {
        let mut fields = Vec::with_capacity(columns);
        for _ in 0..columns {
            let digits = all[at..].iter().position(|byte| *byte == b':')?;
            let length = match digits {
                0 => None,
                _ => Some(std::str::from_utf8(&all[at..at + digits]).ok()?.parse::<usize>().ok()?),
            };
            let start = at + digits + 1;
            at = start.checked_add(length.unwrap_or(0)).filter(|end| *end <= all.len())?;
            fields.push(length.map(|_| start..at));
        }
        rows.push(PackedRow { all: all.clone(), fields });
    }
    Some(rows)
}

impl PackedRow {
    /// None when the row has no such field, or not of this shape.
    pub fn field<'r, F: Field<'r>>(&'r self, at: usize) -> Option<F> {
        F::of(self.fields.get(at)?.clone().map(|range| &self.all[range]))
    }
}

impl<'r> Field<'r> for &'r [u8] {
    fn of(bytes: Option<&'r [u8]>) -> Option<Self> {
        bytes
    }
}

impl<'r> Field<'r> for &'r str {
    fn of(bytes: Option<&'r [u8]>) -> Option<Self> {
        std::str::from_utf8(bytes?).ok()
    }
}

impl Field<'_> for i64 {
    fn of(bytes: Option<&[u8]>) -> Option<Self> {
        <&str>::of(bytes)?.parse().ok()
    }
}

impl<'r, F: Field<'r>> Field<'r> for Option<F> {
    fn of(bytes: Option<&'r [u8]>) -> Option<Self> {
        match bytes {
            None => Some(None),
            bytes => F::of(bytes).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::db::{Db, Param};

    #[tokio::test]
    async fn rows_come_back_as_they_are() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let db = Db::parse(&format!("sqlite:{}/x.db", folder.path().display())).expect("a url");
        let mut conn = db.connect().await.ok().expect("opens");
        // No text, and bytes that are none: zeros, colons, broken UTF-8.
        let blobs: [&[u8]; 4] = [b"", &[0, b':', 0xff, 0xc3, 0, b'7', b':'], &[0; 300], b"3:abc"];
        let values: Vec<String> =
            (0..blobs.len()).map(|n| format!("(${}, ${}, ${})", 3 * n + 1, 3 * n + 2, 3 * n + 3)).collect();
        let numbers = [i64::MIN, -1, 0, i64::MAX];
        let params = numbers.iter().zip(blobs).flat_map(|(number, blob)| {
            [Param::Int(*number), Param::Bytes(blob.to_vec()), Param::OptInt((*number > 0).then_some(*number))]
        });
        let sql = joined(&format!("select * from (values {})", values.join(",")), 3);
        let rows = conn.rows(&sql, params.collect()).await.ok().expect("answers");
        let all = rows[0].opt_bytes(0).ok().expect("a blob").expect("is not null").to_vec();
        let rows = parted(&all, 3).expect("rows");
        assert_eq!(rows.len(), 4);
        for ((row, number), blob) in rows.iter().zip(numbers).zip(blobs) {
            assert_eq!(row.field::<i64>(0), Some(number));
            assert_eq!(row.field::<&[u8]>(1), Some(blob));
            assert_eq!(row.field::<Option<i64>>(2), Some((number > 0).then_some(number)));
            assert_eq!(row.field::<i64>(2).is_some(), number > 0);
            assert_eq!(row.field::<i64>(3), None);
        }
        // Cut off, or of another number of fields.
        assert!((1..all.len()).all(|end| parted(&all[..end], 3).is_none_or(|rows| rows.len() < 4)));
        assert!(parted(&all, 5).is_none());
        for (sql, wanted) in [
            ("select * from (values (-1, 2), (9223372036854775807, 0))", vec![[-1, 2], [i64::MAX, 0]]),
            ("select 1, 2 where 1 = 0", Vec::new()),
        ] {
            let rows = conn.rows(&numbered(false, sql, 2), Vec::new()).await.ok().expect("answers");
            assert_eq!(rows_of::<2>(&rows[0]).ok(), Some(Some(wanted.clone())));
            assert_eq!(rows_of::<3>(&rows[0]).ok().flatten().is_none(), wanted.len() == 2);
        }
        let none = conn.rows(&joined("select 1 where 1 = 0", 1), Vec::new()).await.ok().expect("answers");
        assert_eq!(none[0].opt_bytes(0).ok(), Some(None));
    }
}
