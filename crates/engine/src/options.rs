//! How a model is run. None of it changes a bit of any result.

/// What an engine may use of its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Worker threads; 0 for as many as the machine runs at once.
    pub threads: usize,
    /// Vector instructions.
    pub simd: Simd,
}

/// Vector instructions to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Simd {
    /// The widest that this machine has.
    #[default]
    Auto,
    /// None: the scalar functions of `gainsay-arithmetic`, slow.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, BW, VL and DQ.
    Avx512,
}

impl Simd {
    /// The choices other than [`Simd::Auto`] that this machine can run, slowest first.
    pub fn available() -> Vec<Self> {
        let all = [Self::Portable, Self::Avx2, Self::Avx512];
        all.into_iter().filter(|&simd| crate::kernels::Kernels::detect(simd).is_some()).collect()
    }

    /// `auto`, `portable`, `avx2`, `avx512`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl std::fmt::Display for Simd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
