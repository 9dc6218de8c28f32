//! The part of CBOR (RFC 8949) that authenticators send: CTAP2 canonical form, with definite lengths alone. Anything else is
//! refused. Pure.

/// How deep things may lie in each other.
const DEPTH_MAX: usize = 6;

#[derive(Debug, PartialEq)]
pub enum Item<'a> {
    Int(i64),
    Bytes(&'a [u8]),
    Text(&'a str),
    List(Vec<Item<'a>>),
    Map(Vec<(Item<'a>, Item<'a>)>),
    /// False, true, null.
    Simple(u8),
}

impl<'a> Item<'a> {
    /// What a map has under a text.
    pub fn named(&self, name: &str) -> Option<&Item<'a>> {
        self.under(&Item::Text(name))
    }

    /// What a map has under a number.
    pub fn numbered(&self, number: i64) -> Option<&Item<'a>> {
        self.under(&Item::Int(number))
    }

    fn under(&self, key: &Item<'_>) -> Option<&Item<'a>> {
        match self {
            Item::Map(pairs) => pairs.iter().find(|(own, _)| own == key).map(|(_, value)| value),
            _ => None,
        }
    }

    pub fn bytes(&self) -> Option<&'a [u8]> {
        if let Item::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    pub fn int(&self) -> Option<i64> {
        if let Item::Int(number) = self { Some(*number) } else { None }
    }
}

/// The first item, and what comes behind it. None: this is no CBOR of that form, or a map has a key twice.
pub fn read(bytes: &[u8]) -> Option<(Item<'_>, &[u8])> {
    item(bytes, 0)
}

fn item(bytes: &[u8], depth: usize) -> Option<(Item<'_>, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if depth > DEPTH_MAX {
        return None;
    }
    let (major, small) = (first >> 5, first & 31);
    if major == 7 {
        return matches!(small, 20..=22).then_some((Item::Simple(small), rest));
    }
    let (argument, rest) = match small {
        0..=23 => (u64::from(small), rest),
        24..=27 => {
            let (number, rest) = rest.split_at_checked(1 << (small - 24))?;
            (number.iter().fold(0, |all, byte| (all << 8) | u64::from(*byte)), rest)
        }
        _ => return None,
    };
    let count = usize::try_from(argument).ok()?;
    match major {
        0 => Some((Item::Int(i64::try_from(argument).ok()?), rest)),
        1 => Some((Item::Int(-1 - i64::try_from(argument).ok()?), rest)),
        2 => rest.split_at_checked(count).map(|(own, rest)| (Item::Bytes(own), rest)),
        3 => {
            let (own, rest) = rest.split_at_checked(count)?;
            Some((Item::Text(std::str::from_utf8(own).ok()?), rest))
        }
        4 => {
            let (mut items, mut rest) = (Vec::new(), rest);
            for _ in 0..count {
                let (one, behind) = item(rest, depth + 1)?;
                items.push(one);
                rest = behind;
            }
            Some((Item::List(items), rest))
        }
        5 => {
            let (mut pairs, mut rest): (Vec<(Item<'_>, Item<'_>)>, _) = (Vec::new(), rest);
            for _ in 0..count {
                let (key, behind) = item(rest, depth + 1)?;
                let (value, behind) = item(behind, depth + 1)?;
                if pairs.iter().any(|(own, _)| *own == key) {
                    return None;
                }
                pairs.push((key, value));
                rest = behind;
            }
            Some((Item::Map(pairs), rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_and_what_is_none_is_refused() {
        let map = b"\xa3\x63fmt\x64none\x01\x26\x20\x42\x01\x02rest";
        let (read_map, rest) = read(map).unwrap();
        assert_eq!(read_map.named("fmt"), Some(&Item::Text("none")));
        assert_eq!(
            (read_map.numbered(1).unwrap().int(), read_map.numbered(-1).unwrap().bytes()),
            (Some(-7), Some(&[1u8, 2][..]))
        );
        assert_eq!((read_map.numbered(9), rest), (None, &b"rest"[..]));
        assert_eq!(read(b"\x39\x01\x00").unwrap().0, Item::Int(-257));
        assert_eq!(read(b"\x82\x01\xf5").unwrap().0, Item::List(vec![Item::Int(1), Item::Simple(21)]));
        for wrong in [
            &b""[..],
            b"\x42\x01",
            b"\x5f\x41\x01\xff",
            b"\x61\xff",
            b"\xa2\x01\x01\x01\x02",
            b"\xa1\x01",
            b"\xfb\0\0\0\0\0\0\0\0",
            b"\xc0\x60",
            b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x81\x81\x81\x81\x81\x81\x81\x81\x01",
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
