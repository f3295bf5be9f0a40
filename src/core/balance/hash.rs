//! Hashes that every proxy computes alike, whatever its version: endpoints and keys must mean the same everywhere.

use twox_hash::XxHash3_64;

/// The hash of `bytes` (XXH3, 64 bits, unseeded).
pub(super) fn stable(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// Another number for each number, with no pattern left (the finaliser of SplitMix64).
pub(super) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proxies of different versions send one key to one endpoint only while these stay.
    #[test]
    fn hashes_never_change() {
        assert_eq!(stable(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(stable(b"alice"), stable(b"alice"));
        assert_eq!([mix(0), mix(1)], [0xe220_a839_7b1d_cdaf, 0x910a_2dec_8902_5cc1]);
    }
}
