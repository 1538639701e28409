//! Numbers to test with: a small seeded generator, and the values where arithmetic goes wrong.

/// SplitMix64: enough randomness to test with, the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Any 32 bits: all of NaN, infinities and subnormals occur.
    pub(crate) fn any(&mut self) -> f32 {
        f32::from_bits((self.word() >> 32) as u32)
    }

    /// A finite number whose exponent lies within `spread` of that of 1, either sign, full mantissa.
    pub(crate) fn near_one(&mut self, spread: u32) -> f32 {
        let word = self.word();
        let exponent = 127 - spread + (word >> 40) as u32 % (2 * spread + 1);
        f32::from_bits((word as u32 & 0x807f_ffff) | exponent << 23)
    }

    pub(crate) fn row(&mut self, len: usize, spread: u32) -> Vec<f32> {
        (0..len).map(|_| self.near_one(spread)).collect()
    }

    pub(crate) fn levels(&mut self, len: usize) -> Vec<i8> {
        (0..len).map(|_| (self.word() % 255) as i32 - 127).map(|level| level as i8).collect()
    }
}

/// Values at the edges of the format and of the functions defined here, each with both signs.
pub(crate) fn edges() -> Vec<f32> {
    const MAGNITUDES: &[u32] = &[
        0x0000_0000, // 0
        0x0000_0001, // least subnormal
        0x0000_0002,
        0x0000_0003,
        0x0040_0000, // 2^-127
        0x007f_ffff, // greatest subnormal
        0x0080_0000, // least normal
        0x0080_0001,
        0x00ff_ffff,
        0x0100_0000,
        0x0d7f_ffff, // around 2^-100
        0x0d80_0000,
        0x1980_0000, // 2^-76
        0x2b8c_bccc, // 1e-12
        0x3300_0000, // 2^-25
        0x3380_0000, // 2^-24
        0x3380_0001,
        0x3400_0000, // 2^-23
        0x3dcc_cccd, // 0.1
        0x3eff_ffff,
        0x3f00_0000, // 0.5
        0x3f00_0001,
        0x3f31_7218, // ln 2
        0x3f35_04f3, // 1/sqrt 2
        0x3f7f_ffff,
        0x3f80_0000, // 1
        0x3f80_0001,
        0x3f80_0002,
        0x3f97_ffff, // around 1.1875
        0x3f98_0000,
        0x3fc0_0000, // 1.5
        0x3fff_ffff,
        0x4000_0000, // 2
        0x4020_0000, // 2.5
        0x4024_0000, // 2.5625
        0x4049_0fdb, // pi
        0x407f_ffff, // around 4
        0x4080_0000,
        0x4080_0001,
        0x41a0_0000, // 20
        0x42ae_9999, // around 87.3
        0x42ae_999a,
        0x42ae_999b,
        0x42b1_7217, // around 88.72283
        0x42b1_7218,
        0x42fe_0000, // 127
        0x4b7f_ffff, // 2^24 - 1
        0x4b80_0000, // 2^24
        0x5f80_0000, // 2^64
        0x7e80_0000, // 2^126
        0x7f00_0000, // 2^127
        0x7f7f_ffff, // greatest
        0x7f80_0000, // infinity
        0x7f80_0001, // signalling NaN
        0x7fc0_0000, // canonical NaN
        0x7fff_ffff, // NaN, full payload
    ];
    MAGNITUDES.iter().flat_map(|&bits| [f32::from_bits(bits), f32::from_bits(bits | 0x8000_0000)]).collect()
}
