//! How a model is run. None of it changes a bit of any result.

use crate::DeviceChoice;

/// What an engine may use of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Worker threads; 0 for as many as the machine runs at once.
    pub threads: usize,
    /// Where it runs.
    pub device: DeviceChoice,
    /// Vector instructions of the CPU.
    pub simd: Simd,
    /// Bytes that a model's weights may take. A model that needs more is refused.
    pub weights: u64,
    /// Bytes that the widest layer of a job may take, with its keys and values. A job that needs more is refused: a party
    /// that could run it and not show its layers afterwards would lose the dispute about it.
    pub memory: u64,
}

impl Options {
    /// Bytes that a job may take where nothing else is said: enough for every job that the protocol takes, whose widest
    /// layer may be held twice, or once beside its keys and values.
    pub const DEFAULT_MEMORY: u64 = 2 * gainsay_program::MAX_JOB_MEMORY;
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 0,
            device: DeviceChoice::Auto,
            simd: Simd::Auto,
            weights: gainsay_program::MAX_WEIGHT_MEMORY,
            memory: Self::DEFAULT_MEMORY,
        }
    }
}

/// Vector instructions to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Simd {
    /// The fastest that this machine has.
    #[default]
    Auto,
    /// None: the scalar functions of `gainsay-arithmetic`, slow.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX2 with FMA and F16C, and AVX-VNNI for int8.
    AvxVnni,
    /// AVX-512 F, BW, VL and DQ.
    Avx512,
    /// AVX-512 F, BW, VL and DQ, and its VNNI for int8.
    Avx512Vnni,
    /// AVX-512 F, BW, VL and DQ, and AMX for int8.
    Amx,
}

impl Simd {
    /// The choices other than [`Simd::Auto`], slowest first.
    pub(crate) const LADDER: [Self; 6] =
        [Self::Portable, Self::Avx2, Self::AvxVnni, Self::Avx512, Self::Avx512Vnni, Self::Amx];

    /// The choices other than [`Simd::Auto`] that this machine can run, slowest first.
    pub fn available() -> Vec<Self> {
        let all = Self::LADDER.into_iter();
        all.filter(|&simd| crate::kernels::Kernels::detect(simd).is_some()).collect()
    }

    /// Those of [`Simd::available`] that differ in how they compute with floats.
    pub fn available_for_floats() -> Vec<Self> {
        let is_float = |simd: &Self| matches!(simd, Self::Portable | Self::Avx2 | Self::Avx512);
        Self::available().into_iter().filter(is_float).collect()
    }

    /// `auto`, `portable`, `avx2`, `avx-vnni`, `avx512`, `avx512-vnni`, `amx`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Amx => "amx",
        }
    }
}

impl std::fmt::Display for Simd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
