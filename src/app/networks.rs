//! Values of settings about addresses and rates: networks, and clients with a limit of their own.

use std::net::{IpAddr, Ipv6Addr};

/// Addresses and networks in CIDR notation. IPv4 stands among IPv6 as its mapped addresses, so that a socket that
/// takes both compares alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks(Vec<(u128, u32)>);

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped().to_bits(),
        IpAddr::V6(six) => six.to_bits(),
    }
}

fn head(bits: u128, length: u32) -> u128 {
    bits.checked_shr(128 - length).unwrap_or(0)
}

impl Networks {
    pub fn has(&self, address: IpAddr) -> bool {
        let address = bits(address);
        self.0.iter().any(|(network, length)| head(address, *length) == head(*network, *length))
    }

    /// Addresses and networks separated by spaces; None when one is neither.
    pub fn parse(text: &str) -> Option<Networks> {
        text.split_ascii_whitespace().map(network).collect::<Option<Vec<_>>>().map(Networks)
    }
}

fn network(text: &str) -> Option<(u128, u32)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let own = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(own);
    (length <= own).then(|| (bits(address), length + 128 - own))
}

/// Whom an address stands for: itself, or all of a /64 of IPv6, which one host has to itself.
pub fn neighbourhood(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(four) => four.to_ipv6_mapped().to_bits(),
        IpAddr::V6(six) => Ipv6Addr::to_bits(six) >> 64 << 64,
    }
}

/// Requests in five minutes of clients that have a limit of their own; 0: none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRates(Vec<(String, u64)>);

impl ClientRates {
    pub fn of(&self, client_id: &str) -> Option<u64> {
        self.0.iter().find(|(own, _)| own == client_id).map(|(_, max)| *max)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `client_id=NUMBER` separated by spaces; None when one is not.
    pub fn parse(text: &str, max: u64) -> Option<ClientRates> {
        let one = |text: &str| {
            let (client_id, number) = text.rsplit_once('=')?;
            let number = number.parse::<u64>().ok().filter(|number| *number <= max)?;
            (!client_id.is_empty()).then(|| (client_id.to_owned(), number))
        };
        text.split_ascii_whitespace().map(one).collect::<Option<Vec<_>>>().map(ClientRates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let networks = Networks::parse("10.0.0.0/8 192.0.2.7 2001:db8::/32 ::1").unwrap();
        for (address, held) in [
            ("10.255.1.2", true),
            ("::ffff:10.1.1.1", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(networks.has(address.parse().unwrap()), held, "{address}");
        }
        assert!(Networks::parse("0.0.0.0/0").unwrap().has("203.0.113.9".parse().unwrap()));
        assert!(!Networks::parse("0.0.0.0/0").unwrap().has("2001:db8::1".parse().unwrap()), "IPv4 alone");
        assert!(!Networks::parse("").unwrap().has("127.0.0.1".parse().unwrap()));
        for wrong in ["10.0.0.0/33", "::/129", "localhost", "10.0.0", "10.0.0.1/", "10.0.0.1/-1"] {
            assert_eq!(Networks::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_host_of_ipv6_is_its_network() {
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    }

    #[test]
    fn clients_have_numbers() {
        let rates = ClientRates::parse("loader=0 a=b=70000", 100_000).unwrap();
        assert_eq!((rates.of("loader"), rates.of("a=b"), rates.of("a")), (Some(0), Some(70_000), None));
        for wrong in ["loader", "=5", "loader=", "loader=x", "loader=100001"] {
            assert_eq!(ClientRates::parse(wrong, 100_000), None, "{wrong}");
        }
    }
}
