//! [`Lanes`] on AVX2 with FMA and F16C: eight floats, sixteen registers.

use std::arch::x86_64::*;

use super::lanes::{Kernel, Lanes};

/// Proof that this machine has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, where the machine gives it.
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn enter<K: Kernel>(v: Avx2, kernel: K) -> K::Output {
    kernel.run(v)
}

/// Calls an intrinsic of the enabled instruction set.
macro_rules! call {
    ($intrinsic:expr) => {
        // SAFETY: an `Avx2` exists only where detection has found the instructions.
        unsafe { $intrinsic }
    };
}

impl Lanes for Avx2 {
    const LANES: usize = 8;
    const STRIP: usize = 6;
    type F = __m256;
    type I = __m256i;
    type M = __m256;

    #[inline(always)]
    fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        call!(enter(self, kernel))
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        call!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    unsafe fn load_from(self, from: *const f32) -> __m256 {
        // SAFETY: the caller vouches for eight readable floats; the instructions exist (see `call`).
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_to(self, x: __m256, to: *mut f32) {
        // SAFETY: the caller vouches for eight writable floats; the instructions exist (see `call`).
        unsafe { _mm256_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn load_bf16_from(self, from: *const u16) -> __m256 {
        // SAFETY: the caller vouches for eight readable shorts; the instructions exist (see `call`).
        let shorts = unsafe { _mm_loadu_si128(from.cast()) };
        call!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(shorts))))
    }

    #[inline(always)]
    unsafe fn load_f16_from(self, from: *const u16) -> __m256 {
        // SAFETY: the caller vouches for eight readable shorts; the instructions exist (see `call`).
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn transpose(
        self,
        from: *const f32,
        from_stride: usize,
        rows: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        let mut square = [self.splat(0.0); 8];
        for (i, row) in square.iter_mut().enumerate() {
            if i < rows {
                // SAFETY: row i < rows of `from` is readable, by the contract of this method.
                *row = unsafe { self.load_from(from.add(i * from_stride)) };
            }
        }
        let square = transpose_square(self, square);
        for (k, row) in square.into_iter().enumerate() {
            // SAFETY: row k < 8 of `to` is writable, by the contract of this method.
            unsafe { self.store_to(row, to.add(k * to_stride)) };
        }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        call!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        call!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        call!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        call!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        call!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        call!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn less(self, a: __m256, b: __m256) -> __m256 {
        call!(_mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
    }

    #[inline(always)]
    fn is_nan(self, a: __m256) -> __m256 {
        call!(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, a))
    }

    #[inline(always)]
    fn select(self, mask: __m256, yes: __m256, no: __m256) -> __m256 {
        call!(_mm256_blendv_ps(no, yes, mask))
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> __m256i {
        call!(_mm256_set1_epi32(x))
    }

    #[inline(always)]
    fn bits(self, a: __m256) -> __m256i {
        call!(_mm256_castps_si256(a))
    }

    #[inline(always)]
    fn float(self, a: __m256i) -> __m256 {
        call!(_mm256_castsi256_ps(a))
    }

    #[inline(always)]
    fn add_int(self, a: __m256i, b: __m256i) -> __m256i {
        call!(_mm256_add_epi32(a, b))
    }

    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        call!(_mm256_and_si256(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        call!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn shift_left<const N: i32>(self, a: __m256i) -> __m256i {
        call!(_mm256_slli_epi32::<N>(a))
    }

    #[inline(always)]
    fn shift_right<const N: i32>(self, a: __m256i) -> __m256i {
        call!(_mm256_srai_epi32::<N>(a))
    }

    #[inline(always)]
    fn sub_int(self, a: __m256i, b: __m256i) -> __m256i {
        call!(_mm256_sub_epi32(a, b))
    }

    #[inline(always)]
    fn min_int(self, a: __m256i, b: __m256i) -> __m256i {
        call!(_mm256_min_epi32(a, b))
    }

    #[inline(always)]
    fn max_int(self, a: __m256i, b: __m256i) -> __m256i {
        call!(_mm256_max_epi32(a, b))
    }

    #[inline(always)]
    fn greatest_int(self, a: __m256i) -> i32 {
        let four = call!(_mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a)));
        let two = call!(_mm_max_epi32(four, _mm_unpackhi_epi64(four, four)));
        call!(_mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32::<1>(two))))
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256i {
        call!(_mm256_cvtps_epi32(a))
    }

    #[inline(always)]
    fn to_float(self, a: __m256i) -> __m256 {
        call!(_mm256_cvtepi32_ps(a))
    }

    #[inline(always)]
    unsafe fn load_int_from(self, from: *const i32) -> __m256i {
        // SAFETY: the caller vouches for eight readable integers; the instructions exist (see `call`).
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_low_bytes(self, a: __m256i, to: *mut u8) {
        // Byte 0 of each lane of a 128-bit half, four times over.
        let halves = call!(_mm256_shuffle_epi8(a, _mm256_set1_epi32(0x0c08_0400)));
        let (low, high) = call!((_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves)));
        // SAFETY: the caller vouches for eight writable bytes; the instructions exist (see `call`).
        unsafe { _mm_storel_epi64(to.cast(), _mm_unpacklo_epi32(low, high)) }
    }

    #[inline(always)]
    unsafe fn store_low_shorts(self, a: __m256i, to: *mut u8) {
        // Bytes 0 and 1 of each lane of a 128-bit half, twice over.
        let halves = call!(_mm256_shuffle_epi8(a, _mm256_set1_epi64x(0x0d0c_0908_0504_0100)));
        let (low, high) = call!((_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves)));
        // SAFETY: the caller vouches for sixteen writable bytes; the instructions exist (see `call`).
        unsafe { _mm_storeu_si128(to.cast(), _mm_unpacklo_epi64(low, high)) }
    }
}

/// Transposes in registers: pairs of floats, then fours, then the 128-bit halves.
#[inline(always)]
fn transpose_square(_: Avx2, r: [__m256; 8]) -> [__m256; 8] {
    let mut pairs = r;
    for i in (0..8).step_by(2) {
        pairs[i] = call!(_mm256_unpacklo_ps(r[i], r[i + 1]));
        pairs[i + 1] = call!(_mm256_unpackhi_ps(r[i], r[i + 1]));
    }
    let mut fours = pairs;
    for i in (0..8).step_by(4) {
        for half in 0..2 {
            let (a, b) = (pairs[i + half], pairs[i + half + 2]);
            fours[i + 2 * half] = call!(_mm256_shuffle_ps::<0x44>(a, b));
            fours[i + 2 * half + 1] = call!(_mm256_shuffle_ps::<0xEE>(a, b));
        }
    }
    // fours[4g + c] holds, in each 128-bit half q, column 4q + c of rows 4g … 4g+3.
    let mut out = r;
    for c in 0..4 {
        out[c] = call!(_mm256_permute2f128_ps::<0x20>(fours[c], fours[4 + c]));
        out[4 + c] = call!(_mm256_permute2f128_ps::<0x31>(fours[c], fours[4 + c]));
    }
    out
}
