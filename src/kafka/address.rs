//! Whether the text of `bootstrap_servers` can be addresses of brokers at all.
//!
//! It deliberately resolves no name and connects to nothing: whether somebody answers there is found when a job starts.

use crate::error::Error;

/// What librdkafka takes before an address, each as the words of `security.protocol`.
const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];

/// An error for each of the comma-separated addresses that is none.
pub(super) fn mistakes(servers: &str) -> Vec<Error> {
    if servers.split(',').all(|one| one.trim().is_empty()) {
        return vec![refused(servers, "nothing")];
    }
    let named = servers.split(',').map(str::trim).filter(|one| !one.is_empty());
    named.filter_map(mistake).collect()
}

fn mistake(address: &str) -> Option<Error> {
    if address.contains([';', ' ', '\t', '\n']) {
        return Some(refused(address, "several in one").help("separate them by commas, or pass a list"));
    }
    let rest = match address.split_once("://") {
        None => address,
        Some((protocol, rest)) if PROTOCOLS.contains(&&*protocol.to_ascii_lowercase()) => rest,
        Some((protocol, rest)) => {
            let text = refused(address, &format!("one that begins with {protocol}://"));
            return Some(text.help(format!("brokers speak Kafka's own protocol: pass {:?}", bare(rest))));
        }
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_open = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    match port {
        _ if host.is_empty() => Some(refused(address, "no host")),
        _ if is_open => Some(
            refused(address, "several colons").help("an IPv6 address stands in brackets: \"[::1]:9092\""),
        ),
        Some(port) if port.parse::<u16>().is_ok_and(|port| port > 0) => None,
        Some(port) => {
            Some(refused(address, &format!("the port {port:?}")).help("a port is a number from 1 to 65535"))
        }
        None => None,
    }
}

/// The address without what a browser would add to it.
fn bare(rest: &str) -> &str {
    rest.split('/').next().unwrap_or(rest)
}

fn refused(address: &str, found: &str) -> Error {
    let text = format!("bootstrap_servers is \"host:port\", or several, found {found} in {address:?}");
    Error::config(text).help("pass, say, \"localhost:9092\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_let_through() {
        for address in [
            "localhost:9092",
            "localhost",
            "a:1,b:2",
            " a:1 , b:2,",
            "[::1]:9092",
            "[::1]",
            "SASL_SSL://h:9093",
            "10.0.0.1:65535",
        ] {
            let found = mistakes(address);
            assert!(found.is_empty(), "{address}: {found:?}");
        }
    }

    #[test]
    fn what_is_none_is_told_with_what_to_pass() {
        for (address, part) in [
            ("", "found nothing"),
            (",", "found nothing"),
            (
                "http://h:9092/topics",
                "found one that begins with http:// in \"http://h:9092/topics\"; brokers speak Kafka's own protocol: pass \"h:9092\"",
            ),
            ("kafka://h", "pass \"h\""),
            ("h:65536", "found the port \"65536\" in \"h:65536\"; a port is a number from 1 to 65535"),
            ("h:0", "the port \"0\""),
            ("h:", "the port \"\""),
            ("h:9092/", "the port \"9092/\""),
            (":9092", "found no host"),
            ("::1", "an IPv6 address stands in brackets"),
            ("a:1;b:2", "separate them by commas"),
            ("a:1 b:2", "separate them by commas"),
        ] {
            let found = mistakes(address);
            assert!(found.len() == 1 && found[0].to_string().contains(part), "{address}: {found:?}");
        }
        assert_eq!(mistakes("a:x,b:1,c:y").len(), 2, "each is told");
    }
}
