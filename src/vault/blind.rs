//! Blind terms and tokens (design 2.5): keyed one-way values by which a database can find rows without knowing what
//! it looks for. All derive from the index key, which is wrapped apart from the KEK.

use aws_lc_rs::hmac;

use super::crypto::{Key256, derive_key};
use super::{Pk, TermPlace};

/// Scheme of the terms. A change of any normal form or of this layout needs a new number and a re-index.
const SCHEME: u8 = 1;

/// The three keys that come from the index key, prepared.
pub(super) struct Blind {
    term: hmac::Key,
    token: hmac::Key,
    partition: hmac::Key,
}

impl Blind {
    pub(super) fn new(index: &Key256) -> Blind {
        let key = |label: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, &*derive_key(index, &[label]));
        Blind { term: key(b"term-T"), token: key(b"token"), partition: key(b"partition") }
    }

    /// Of the parts of a value, one after the other.
    pub(super) fn term(&self, place: &TermPlace, value: &[&[u8]]) -> i64 {
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().encryption {
            return super::bench::term(place, &value.concat());
        }
        let [r1, r2] = place.rtype.to_be_bytes();
        let [p1, p2] = place.param.to_be_bytes();
        let mut mac = hmac::Context::with_key(&self.term);
        mac.update(&[SCHEME, r1, r2, p1, p2, place.form, place.partition]);
        for part in value {
            mac.update(part);
        }
        i64::from_be_bytes(first(mac.sign().as_ref()))
    }

    pub(super) fn token(&self, domain: &str, value: &[u8]) -> [u8; 16] {
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().encryption {
            return super::bench::token(domain, value);
        }
        let mut mac = hmac::Context::with_key(&self.token);
        mac.update(&[SCHEME]);
        // The length in front keeps ("ab", "c") and ("a", "bc") apart.
        mac.update(&(domain.len() as u64).to_be_bytes());
        mac.update(domain.as_bytes());
        mac.update(value);
        first(mac.sign().as_ref())
    }

    pub(super) fn partition(&self, pk: Pk, partitions: u8) -> u8 {
        if partitions <= 1 {
            return 0;
        }
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().encryption {
            return super::bench::partition(pk, partitions);
        }
        let tag = hmac::sign(&self.partition, &pk.0.to_be_bytes());
        let number = u64::from_be_bytes(first(tag.as_ref()));
        (number % u64::from(partitions)) as u8
    }
}

fn first<const N: usize>(tag: &[u8]) -> [u8; N] {
    *tag.first_chunk::<N>().expect("a SHA-256 tag has 32 bytes")
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    /// Computed independently (HKDF-Expand and HMAC of another implementation): they pin the stored forms.
    #[test]
    fn known_answers() {
        let blind = Blind::new(&Zeroizing::new([7; 32]));
        let place = TermPlace { rtype: 102, param: 515, form: 3, partition: 9 };
        assert_eq!(blind.term(&place, &[b"http://loinc.org|8867-4"]), -7_245_980_301_265_482_628);
        assert_eq!(blind.term(&place, &[b"http:", b"//loinc.org", b"|8867-4"]), -7_245_980_301_265_482_628);
        let token = crate::world::hex(&blind.token("mrn", b"urn:x|MRN000001"));
        assert_eq!(token, "b8ad0fd9b47a159363bb10e6ae727989");
        assert_eq!(blind.partition(Pk(4_611_686_018_427_387_905), 16), 9);
    }

    #[test]
    fn every_part_of_a_place_matters() {
        let blind = Blind::new(&Zeroizing::new([7; 32]));
        let place = TermPlace { rtype: 1, param: 2, form: 3, partition: 4 };
        let others = [
            TermPlace { rtype: 9, ..place },
            TermPlace { param: 9, ..place },
            TermPlace { form: 9, ..place },
            TermPlace { partition: 9, ..place },
        ];
        for other in others {
            assert_ne!(blind.term(&place, &[b"x"]), blind.term(&other, &[b"x"]));
        }
        assert_ne!(blind.token("a", b"bc"), blind.token("ab", b"c"));
    }

    #[test]
    fn partitions_are_all_used_and_in_range() {
        let blind = Blind::new(&Zeroizing::new([7; 32]));
        let mut seen = [0u32; 16];
        for pk in 1..=1600 {
            seen[usize::from(blind.partition(Pk(pk), 16))] += 1;
        }
        assert!(seen.iter().all(|count| (50..=170).contains(count)), "{seen:?}");
        assert_eq!((blind.partition(Pk(5), 0), blind.partition(Pk(5), 1)), (0, 0));
    }
}
