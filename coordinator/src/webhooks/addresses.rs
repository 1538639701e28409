//! Which addresses are of the whole network, by IANA's registries of special-purpose addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const fn v4(a: u8, b: u8, c: u8, d: u8) -> u32 {
    Ipv4Addr::new(a, b, c, d).to_bits()
}

/// Blocks of the older kind that have a special purpose, with the lengths of their prefixes.
const SPECIAL_V4: [(u32, u32); 20] = [
    (v4(0, 0, 0, 0), 8),          // this network
    (v4(10, 0, 0, 0), 8),         // private
    (v4(100, 64, 0, 0), 10),      // shared with carriers
    (v4(127, 0, 0, 0), 8),        // loopback
    (v4(168, 63, 129, 16), 32),   // Azure's own services, in public space
    (v4(169, 254, 0, 0), 16),     // link-local, and metadata of clouds
    (v4(172, 16, 0, 0), 12),      // private
    (v4(192, 0, 0, 0), 24),       // protocol assignments
    (v4(192, 0, 2, 0), 24),       // documentation
    (v4(192, 31, 196, 0), 24),    // AS112
    (v4(192, 52, 193, 0), 24),    // AMT
    (v4(192, 88, 99, 0), 24),     // relays of 6to4
    (v4(192, 168, 0, 0), 16),     // private
    (v4(192, 175, 48, 0), 24),    // AS112
    (v4(198, 18, 0, 0), 15),      // benchmarks
    (v4(198, 51, 100, 0), 24),    // documentation
    (v4(203, 0, 113, 0), 24),     // documentation
    (v4(224, 0, 0, 0), 4),        // multicast
    (v4(240, 0, 0, 0), 4),        // reserved
    (v4(255, 255, 255, 255), 32), // broadcast
];

const fn v6(a: u16, b: u16, c: u16) -> u128 {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).to_bits()
}

/// What is given out of the newer kind. Outside it are loopback, private and link-local addresses, multicast, and those that
/// hold an address of the older kind: mapped ones and NAT64's.
const GIVEN_OUT_V6: (u128, u32) = (v6(0x2000, 0, 0), 3);

/// Blocks within that have a special purpose.
const SPECIAL_V6: [(u128, u32); 5] = [
    (v6(0x2001, 0, 0), 23),         // protocol assignments: Teredo, ORCHID, benchmarks
    (v6(0x2001, 0xdb8, 0), 32),     // documentation
    (v6(0x2002, 0, 0), 16),         // 6to4, which holds an address of the older kind
    (v6(0x2620, 0x4f, 0x8000), 48), // AS112
    (v6(0x3fff, 0, 0), 20),         // documentation
];

/// Whether an address is one of the whole network.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            !SPECIAL_V4.iter().any(|(block, length)| (bits ^ block) >> (u32::BITS - length) == 0)
        }
        IpAddr::V6(address) => {
            let within =
                |(block, length): &(u128, u32)| (address.to_bits() ^ block) >> (u128::BITS - length) == 0;
            within(&GIVEN_OUT_V6) && !SPECIAL_V6.iter().any(within)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these is a machine that only the service can reach, or none at all.
    #[test]
    fn private_addresses_are_none_of_the_whole_network() {
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.0.192",
            "192.0.2.1",
            "192.31.196.1",
            "192.52.193.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.175.48.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:1.1.1.1",
            "64:ff9b::7f00:1",
            "64:ff9b::101:101",
            "64:ff9b:1::1",
            "100::1",
            "100:0:0:1::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:101:101::1",
            "2620:4f:8000::1",
            "3fff::1",
            "3fff:fff:ffff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for address in private {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        let public = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.1",
            "168.63.129.15",
            "168.63.129.17",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860::1",
            "2003::1",
            "2606:4700::1111",
            "2620:4f:8001::1",
            "2a00::1",
            "3fff:1000::1",
        ];
        for address in public {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
