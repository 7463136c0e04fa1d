//! What a certificate says of itself: for whom it is, who vouches for it, and until when; for errors only.
//!
//! It deliberately verifies nothing, and what it cannot read it leaves out: OpenSSL has judged the certificate before.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The parts that a user can compare with what he expected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// The hosts that it is for.
    pub(crate) hosts: Vec<String>,
    /// Who vouches for it.
    pub(crate) issuer: String,
    /// From when on it is good, as `2026-11-21 09:30 UTC`.
    pub(crate) not_before: String,
    /// Until when.
    pub(crate) not_after: String,
}

/// Object identifiers as they stand in a certificate.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANISATION: &[u8] = &[0x55, 0x04, 0x0a];
const OTHER_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// Tags of its elements.
const SEQUENCE: u8 = 0x30;
const OBJECT: u8 = 0x06;
const BYTES: u8 = 0x04;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const SHORT_TIME: u8 = 0x17;
const DNS_NAME: u8 = 0x82;
const ADDRESS: u8 = 0x87;

impl Certificate {
    /// Reads DER; as far as it can be read.
    pub(crate) fn read(der: &[u8]) -> Self {
        Self::try_read(der).unwrap_or_default()
    }

    fn try_read(der: &[u8]) -> Option<Self> {
        let body = Elements(Elements(der).next()?.bytes).next()?;
        let mut fields = Elements(body.bytes).filter(|element| element.tag != VERSION).skip(2); // serial number, algorithm
        let issuer = fields.next()?;
        let mut validity = Elements(fields.next()?.bytes);
        let (not_before, not_after) = (validity.next()?.time()?, validity.next()?.time()?);
        let subject = fields.next()?;
        let others = fields
            .find(|element| element.tag == EXTENSIONS)
            .map(|extensions| other_names(&extensions))
            .unwrap_or_default();
        let hosts =
            if others.is_empty() { name(&subject, COMMON_NAME).into_iter().collect() } else { others };
        let issuer = name(&issuer, COMMON_NAME).or_else(|| name(&issuer, ORGANISATION)).unwrap_or_default();
        Some(Self { hosts, issuer, not_before, not_after })
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = if self.hosts.is_empty() { "no host".to_owned() } else { self.hosts.join(", ") };
        write!(
            f,
            "one for {hosts}, issued by {:?}, good from {} to {}",
            self.issuer, self.not_before, self.not_after
        )
    }
}

/// One element: what it is, and its content.
struct Element<'a> {
    tag: u8,
    bytes: &'a [u8],
}

impl Element<'_> {
    fn time(&self) -> Option<String> {
        let text = std::str::from_utf8(self.bytes).ok()?;
        let long = match self.tag {
            SHORT_TIME if *text.as_bytes().first()? < b'5' => format!("20{text}"),
            SHORT_TIME => format!("19{text}"),
            _ => text.to_owned(),
        };
        let part = |from, to| long.get(from..to);
        Some(format!(
            "{}-{}-{} {}:{} UTC",
            part(0, 4)?,
            part(4, 6)?,
            part(6, 8)?,
            part(8, 10)?,
            part(10, 12)?
        ))
    }
}

/// Elements that follow each other.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        // The length itself, or how many bytes of it follow.
        let (length, rest) = match usize::from(*first) {
            length @ 0..=0x7f => (length, rest),
            long => {
                let (digits, rest) =
                    rest.split_at_checked(long - 0x80).filter(|(digits, _)| digits.len() <= 3)?;
                (digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit)), rest)
            }
        };
        let (bytes, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Element { tag: *tag, bytes })
    }
}

/// What a name holds under `kind`: a list of sets of pairs.
fn name(element: &Element<'_>, kind: &[u8]) -> Option<String> {
    Elements(element.bytes).flat_map(|set| Elements(set.bytes)).find_map(|pair| {
        let mut pair = Elements(pair.bytes);
        let (is, value) = (pair.next()?, pair.next()?);
        (is.bytes == kind).then(|| String::from_utf8_lossy(value.bytes).into_owned())
    })
}

fn other_names(extensions: &Element<'_>) -> Vec<String> {
    let all = Elements(extensions.bytes).flat_map(|list| Elements(list.bytes));
    let ours = all.filter(|extension| {
        extension.tag == SEQUENCE
            && Elements(extension.bytes).next().is_some_and(|id| id.tag == OBJECT && id.bytes == OTHER_NAMES)
    });
    let content = ours.filter_map(|extension| Elements(extension.bytes).find(|element| element.tag == BYTES));
    let names = content.flat_map(|content| Elements(content.bytes)).flat_map(|list| Elements(list.bytes));
    names.filter_map(|name| host(&name)).collect()
}

fn host(name: &Element<'_>) -> Option<String> {
    match (name.tag, name.bytes.len()) {
        (DNS_NAME, _) => Some(String::from_utf8_lossy(name.bytes).into_owned()),
        (ADDRESS, 4) => {
            <[u8; 4]>::try_from(name.bytes).ok().map(|address| Ipv4Addr::from(address).to_string())
        }
        (ADDRESS, 16) => {
            <[u8; 16]>::try_from(name.bytes).ok().map(|address| Ipv6Addr::from(address).to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    /// Made for the test: by "Test CA" for two names and an address, for a day in 2024.
    const EXAMPLE: &str = "\
        MIIBUzCB+qADAgECAgEHMAoGCCqGSM49BAMCMBIxEDAOBgNVBAMMB1Rlc3QgQ0EwHhcNMjQwMTAxMDAwMDAwWhcNMjQwMTAyMDAw\
        MDAwWjAQMQ4wDAYDVQQDDAVrYWZrYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJDeXgrKxxuXOj4jZzIuZRQc7aVgQuRFJGu4\
        YKMjkn1ro7uM0I9r6q8JdhBHJOlt4BJqEzeiY7D6oFxd+2X1U7qjQzBBMAwGA1UdEwEB/wQCMAAwMQYDVR0RBCowKIIRa2Fma2Eu\
        ZXhhbXBsZS5vcmeCDSouZXhhbXBsZS5vcmeHBH8AAAEwCgYIKoZIzj0EAwIDSAAwRQIhAJuk/GsbE7pA3odaJVGDrj+ieGSPhctH\
        iTJHqy0atq4AAiAi1uRyr+cYCRzJKMNoX3iLOuTS9ExPXulY2JLVNgB6cA==";

    fn der() -> Vec<u8> {
        BASE64_STANDARD.decode(EXAMPLE).unwrap()
    }

    #[test]
    fn a_certificate_says_for_whom_it_is_by_whom_and_until_when() {
        let text = Certificate::read(&der()).to_string();
        let expected = "one for kafka.example.org, *.example.org, 127.0.0.1, issued by \"Test CA\", good from \
                        2024-01-01 00:00 UTC to 2024-01-02 00:00 UTC";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_damaged_or_cut_off_is_left_out_and_never_a_panic() {
        let der = der();
        for end in 0..der.len() {
            Certificate::read(&der[..end]);
        }
        for index in 0..der.len() {
            let mut damaged = der.clone();
            damaged[index] ^= 0xff;
            Certificate::read(&damaged);
        }
    }
}
