//! Where a request comes from: the socket, or what a proxy says that the settings trust. What anybody else says of it
//! counts for nothing.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::HeaderMap;
use axum::http::header::FORWARDED;
use axum::http::request::Parts;

use crate::app::Config;
use crate::app::config::ProxyHeader;

/// Hops that are looked at; no honest chain of proxies is longer.
const HOPS_MAX: usize = 16;

/// The address of the client, kept with the request.
#[derive(Clone, Copy)]
struct Peer(IpAddr);

/// Finds the address out, once for a request.
pub(super) fn found(config: &Config, parts: &mut Parts) {
    if let Some(socket) = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical()) {
        let address = behind(config, socket, &parts.headers);
        parts.extensions.insert(Peer(address));
    }
}

/// None: it came through no socket.
pub(super) fn of(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<Peer>().map(|peer| peer.0)
}

/// The nearest address that is no proxy of ours. Each hop is believed only because the one before it is trusted.
fn behind(config: &Config, socket: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut nearest = socket;
    let hops = match config.proxy_header {
        ProxyHeader::XForwardedFor => list(headers, "x-forwarded-for"),
        ProxyHeader::Forwarded => list(headers, FORWARDED.as_str()),
    };
    for hop in hops.iter().rev().take(HOPS_MAX) {
        if !config.trusted_proxies.has(nearest) {
            break;
        }
        let said = match config.proxy_header {
            ProxyHeader::XForwardedFor => address(hop),
            ProxyHeader::Forwarded => forwarded_for(hop).and_then(address),
        };
        // A proxy that hides its client, or says what cannot be read, is itself the one who asks.
        let Some(said) = said else { break };
        nearest = said.to_canonical();
    }
    nearest
}

fn list<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).collect()
}

/// `for=` of one element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    Some(value.trim().trim_matches('"'))
}

/// An address, with a port or without: `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let plain = text.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(text);
    plain.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(settings: &[(&'static str, &str)], socket: &str, headers: &[(&'static str, &str)]) -> String {
        let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let config = Config::load(None, [], &settings).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        behind(&config, socket.parse().unwrap(), &map).to_string()
    }

    #[test]
    fn only_proxies_of_the_settings_are_believed() {
        let trust = ("trusted_proxies", "10.0.0.0/8 ::1");
        let forwarded = ("proxy_header", "forwarded");
        let x = "x-forwarded-for";
        for (settings, socket, headers, client) in [
            (&[][..], "198.51.100.1", &[(x, "203.0.113.9")][..], "198.51.100.1"),
            (&[trust], "198.51.100.1", &[(x, "203.0.113.9")], "198.51.100.1"),
            (&[trust], "10.0.0.1", &[(x, "203.0.113.9")], "203.0.113.9"),
            (&[trust], "10.0.0.1", &[(x, "1.1.1.1, 203.0.113.9, 10.2.2.2")], "203.0.113.9"),
            (&[trust], "10.0.0.1", &[(x, "1.1.1.1"), (x, "203.0.113.9")], "203.0.113.9"),
            (&[trust], "10.0.0.1", &[(x, "1.1.1.1, nonsense")], "10.0.0.1"),
            (&[trust], "10.0.0.1", &[], "10.0.0.1"),
            (&[trust], "10.0.0.1", &[(x, "10.9.9.9")], "10.9.9.9"),
            (&[trust], "::1", &[(x, "2001:db8::1")], "2001:db8::1"),
            (&[trust], "10.0.0.1", &[(x, "203.0.113.9:4711")], "203.0.113.9"),
            // Of two headers only the one that the settings name.
            (&[trust], "10.0.0.1", &[("forwarded", "for=1.1.1.1"), (x, "203.0.113.9")], "203.0.113.9"),
            (&[trust, forwarded], "10.0.0.1", &[("forwarded", "for=203.0.113.9"), (x, "1.1.1.1")], "203.0.113.9"),
            (
                &[trust, forwarded],
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1, For=\"[2001:db8::7]:80\";proto=https")],
                "2001:db8::7",
            ),
            (&[trust, forwarded], "10.0.0.1", &[("forwarded", "for=1.1.1.1, for=_hidden")], "10.0.0.1"),
        ] {
            assert_eq!(seen(settings, socket, headers), client, "{settings:?} {socket} {headers:?}");
        }
    }
}
