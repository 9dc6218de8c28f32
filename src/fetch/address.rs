//! Where a request leads, and whether it may go there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::Uri;

use super::{Failure, Reach};

/// Where a request leads.
pub struct Target {
    pub tls: bool,
    /// In lower case, an IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
}

impl Target {
    pub fn of(uri: &Uri) -> Result<Target, Failure> {
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(Failure::Address("an absolute https address is expected")),
        };
        let authority = uri.authority().ok_or(Failure::Address("an address with a host is expected"))?;
        if authority.as_str().contains('@') {
            return Err(Failure::Address("an address without user information is expected"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() || host.contains(['[', ']', '%']) {
            return Err(Failure::Address("an address with a host is expected"));
        }
        Ok(Target { tls, host, port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }) })
    }

    /// Whether a connection to this address of the host is allowed. Without TLS only the own machine is.
    pub fn allows(&self, address: SocketAddr, reach: Reach, private_hosts: &[String]) -> bool {
        let ip = address.ip().to_canonical();
        if !self.tls && !ip.is_loopback() {
            return false;
        }
        reach == Reach::Configured || is_public(ip) || private_hosts.iter().any(|listed| self.is_listed(listed))
    }

    /// `host` stands for every port of it, `host:port` for one.
    fn is_listed(&self, listed: &str) -> bool {
        let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let of_port = listed.rsplit_once(':').is_some_and(|(host, port)| {
            port.parse() == Ok(self.port) && (!host.contains(':') || host.starts_with('[')) && bare(host) == self.host
        });
        of_port || bare(listed) == self.host
    }
}

/// Whether an address belongs to the public internet: no private network, no own machine, no metadata service of a
/// cloud, nothing reserved.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let reserved = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !reserved
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let parts = ip.segments();
    // What a network without IPv4 makes of an IPv4 address.
    if parts[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [.., a, b, c, d] = ip.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    let global = parts[0] & 0xe000 == 0x2000;
    let reserved = match parts[0] {
        // Protocol assignments with Teredo, documentation.
        0x2001 => parts[1] < 0x200 || parts[1] == 0xdb8,
        // 6to4 carries an IPv4 address.
        0x2002 => true,
        0x3fff => parts[1] < 0x1000,
        _ => false,
    };
    global && !reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, Failure> {
        Target::of(&url.parse().expect("a URI"))
    }

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for inside in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fec0::1",
        ] {
            assert!(!is_public(inside.parse().expect(inside)), "{inside}");
        }
        for outside in ["1.1.1.1", "100.128.0.1", "172.32.0.1", "192.1.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(is_public(outside.parse().expect(outside)), "{outside}");
        }
    }

    #[test]
    fn an_address_is_read_in_one_way() {
        let good = target("https://[2606:4700::1]:8443/a?b").unwrap();
        assert_eq!((good.tls, good.host.as_str(), good.port), (true, "2606:4700::1", 8443));
        let good = target("https://Keys.Example/jwks").unwrap();
        assert_eq!((good.host.as_str(), good.port), ("keys.example", 443));
        for bad in ["/jwks", "ftp://a.example/", "https://a@b.example/", "https://user:pw@b.example/", "a.example:443"]
        {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_others_name_leads_outside_or_to_listed_hosts() {
        let (public, inside, own) = ("1.1.1.1:443", "10.0.0.1:443", "127.0.0.1:8080");
        let allows = |url: &str, address: &str, reach, listed: &[&str]| {
            let listed: Vec<String> = listed.iter().map(|host| (*host).to_owned()).collect();
            target(url).unwrap().allows(address.parse().unwrap(), reach, &listed)
        };
        assert!(allows("https://a.example/", public, Reach::Public, &[]));
        assert!(!allows("https://a.example/", inside, Reach::Public, &[]));
        assert!(!allows("https://a.example/", inside, Reach::Public, &["b.example", "a.example:8443"]));
        assert!(allows("https://a.example/", inside, Reach::Public, &["a.example"]));
        assert!(allows("https://a.example/", inside, Reach::Public, &["A.Example:443"]));
        assert!(allows("https://[::1]:9/", "[::1]:9", Reach::Public, &["[::1]:9"]));
        assert!(allows("https://a.example/", inside, Reach::Configured, &[]));
        // Without TLS nothing leaves the machine, whoever named it.
        assert!(!allows("http://a.example/", public, Reach::Configured, &[]));
        assert!(allows("http://127.0.0.1:8080/", own, Reach::Configured, &[]));
        assert!(!allows("http://127.0.0.1:8080/", own, Reach::Public, &[]));
        assert!(allows("http://127.0.0.1:8080/", own, Reach::Public, &["127.0.0.1:8080"]));
    }
}
