//! Checksums: CRC-32 (the one of zip and PNG) of the header and of each block of a shard.

use serde::{Deserialize, Serialize};

/// Bytes that one checksum covers; the last block of a tensor may be shorter.
pub(super) const BLOCK: usize = 1 << 20;

/// Digits of a checksum in hexadecimal.
pub(super) const DIGITS: usize = 8;

/// The checksums of one shard: that of its header, then those of its blocks in the order of the file.
///
/// In the manifest they are one string, eight hexadecimal digits each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Checksums(pub Vec<u32>);

impl From<Checksums> for String {
    fn from(checksums: Checksums) -> String {
        checksums.0.into_iter().map(hex).collect()
    }
}

impl TryFrom<String> for Checksums {
    type Error = String;

    fn try_from(digits: String) -> Result<Checksums, String> {
        let parse = |digits: &[u8]| {
            let text = std::str::from_utf8(digits).ok().filter(|text| text.len() == DIGITS);
            text.and_then(|text| u32::from_str_radix(text, 16).ok())
        };
        let checksums = digits.as_bytes().chunks(DIGITS).map(parse).collect::<Option<_>>();
        checksums.map(Checksums).ok_or_else(|| format!("expected {DIGITS} hexadecimal digits per checksum"))
    }
}

/// A checksum as the manifest shows it.
pub(super) fn hex(checksum: u32) -> String {
    format!("{checksum:08x}")
}

/// CRC-32 of `bytes`.
pub(super) fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_standard_one() {
        // The check value that every catalogue of CRCs gives for CRC-32/ISO-HDLC.
        assert_eq!(crc(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc(b""), 0);
    }

    #[test]
    fn checksums_are_one_string() {
        let checksums = Checksums(vec![0x00c0_ffee, 0, u32::MAX]);
        let text = serde_json::to_string(&checksums).unwrap();
        assert_eq!(text, "\"00c0ffee00000000ffffffff\"");
        assert_eq!(serde_json::from_str::<Checksums>(&text).unwrap(), checksums);
        for bad in ["\"00c0ffe\"", "\"00c0ffeg\"", "\"00c0ffee0\"", "\"ééééé\"", "7"] {
            assert!(serde_json::from_str::<Checksums>(bad).is_err(), "{bad}");
        }
    }
}
