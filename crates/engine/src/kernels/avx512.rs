//! [`Lanes`] on AVX-512: sixteen floats, thirty-two registers.

use std::arch::x86_64::*;

use super::lanes::{Kernel, Lanes};

/// Proof that this machine has AVX-512 F, BW, VL and DQ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The proof, where the machine gives it.
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        found.then_some(Self(()))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn enter<K: Kernel>(v: Avx512, kernel: K) -> K::Output {
    kernel.run(v)
}

/// Calls an intrinsic of the enabled instruction set.
macro_rules! call {
    ($intrinsic:expr) => {
        // SAFETY: an `Avx512` exists only where detection has found the instructions.
        unsafe { $intrinsic }
    };
}

impl Lanes for Avx512 {
    const LANES: usize = 16;
    const STRIP: usize = 14;
    type F = __m512;
    type I = __m512i;
    type M = __mmask16;

    #[inline(always)]
    fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        call!(enter(self, kernel))
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        call!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    unsafe fn load_from(self, from: *const f32) -> __m512 {
        // SAFETY: the caller vouches for sixteen readable floats; the instructions exist (see `call`).
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_to(self, x: __m512, to: *mut f32) {
        // SAFETY: the caller vouches for sixteen writable floats; the instructions exist (see `call`).
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn load_bf16_from(self, from: *const u16) -> __m512 {
        // SAFETY: the caller vouches for sixteen readable shorts; the instructions exist (see `call`).
        let shorts = unsafe { _mm256_loadu_si256(from.cast()) };
        call!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(shorts))))
    }

    #[inline(always)]
    unsafe fn load_f16_from(self, from: *const u16) -> __m512 {
        // SAFETY: the caller vouches for sixteen readable shorts; the instructions exist (see `call`).
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
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
        let mut square = [self.splat(0.0); 16];
        for (i, row) in square.iter_mut().enumerate() {
            if i < rows {
                // SAFETY: row i < rows of `from` is readable, by the contract of this method.
                *row = unsafe { self.load_from(from.add(i * from_stride)) };
            }
        }
        let square = transpose_square(self, square);
        for (k, row) in square.into_iter().enumerate() {
            // SAFETY: row k < 16 of `to` is writable, by the contract of this method.
            unsafe { self.store_to(row, to.add(k * to_stride)) };
        }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        call!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        call!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        call!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        call!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        call!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        call!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn less(self, a: __m512, b: __m512) -> __mmask16 {
        call!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b))
    }

    #[inline(always)]
    fn is_nan(self, a: __m512) -> __mmask16 {
        call!(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a))
    }

    #[inline(always)]
    fn select(self, mask: __mmask16, yes: __m512, no: __m512) -> __m512 {
        call!(_mm512_mask_blend_ps(mask, no, yes))
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> __m512i {
        call!(_mm512_set1_epi32(x))
    }

    #[inline(always)]
    fn bits(self, a: __m512) -> __m512i {
        call!(_mm512_castps_si512(a))
    }

    #[inline(always)]
    fn float(self, a: __m512i) -> __m512 {
        call!(_mm512_castsi512_ps(a))
    }

    #[inline(always)]
    fn add_int(self, a: __m512i, b: __m512i) -> __m512i {
        call!(_mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        call!(_mm512_and_si512(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        call!(_mm512_or_si512(a, b))
    }

    #[inline(always)]
    fn shift_left<const N: i32>(self, a: __m512i) -> __m512i {
        call!(_mm512_sllv_epi32(a, _mm512_set1_epi32(N)))
    }

    #[inline(always)]
    fn shift_right<const N: i32>(self, a: __m512i) -> __m512i {
        call!(_mm512_srav_epi32(a, _mm512_set1_epi32(N)))
    }

    #[inline(always)]
    fn sub_int(self, a: __m512i, b: __m512i) -> __m512i {
        call!(_mm512_sub_epi32(a, b))
    }

    #[inline(always)]
    fn min_int(self, a: __m512i, b: __m512i) -> __m512i {
        call!(_mm512_min_epi32(a, b))
    }

    #[inline(always)]
    fn max_int(self, a: __m512i, b: __m512i) -> __m512i {
        call!(_mm512_max_epi32(a, b))
    }

    #[inline(always)]
    fn greatest_int(self, a: __m512i) -> i32 {
        call!(_mm512_reduce_max_epi32(a))
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512i {
        call!(_mm512_cvtps_epi32(a))
    }

    #[inline(always)]
    fn to_float(self, a: __m512i) -> __m512 {
        call!(_mm512_cvtepi32_ps(a))
    }

    #[inline(always)]
    unsafe fn load_int_from(self, from: *const i32) -> __m512i {
        // SAFETY: the caller vouches for sixteen readable integers; the instructions exist (see `call`).
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_low_bytes(self, a: __m512i, to: *mut u8) {
        // SAFETY: the caller vouches for sixteen writable bytes; the instructions exist (see `call`).
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(a)) }
    }

    #[inline(always)]
    unsafe fn store_low_shorts(self, a: __m512i, to: *mut u8) {
        // SAFETY: the caller vouches for 32 writable bytes; the instructions exist (see `call`).
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(a)) }
    }
}

/// Transposes in registers: pairs of floats, then pairs of doubles, then the 128-bit quarters twice.
#[inline(always)]
fn transpose_square(_: Avx512, r: [__m512; 16]) -> [__m512; 16] {
    let mut pairs = r;
    for i in (0..16).step_by(2) {
        pairs[i] = call!(_mm512_unpacklo_ps(r[i], r[i + 1]));
        pairs[i + 1] = call!(_mm512_unpackhi_ps(r[i], r[i + 1]));
    }
    let mut fours = pairs;
    for i in (0..16).step_by(4) {
        for half in 0..2 {
            let (low, high) = doubles(pairs[i + half], pairs[i + half + 2]);
            fours[i + 2 * half] = low;
            fours[i + 2 * half + 1] = high;
        }
    }
    // fours[4g + c] holds, in each 128-bit quarter q, column 4q + c of rows 4g … 4g+3.
    let mut out = r;
    for c in 0..4 {
        let (a, b, d, e) = (fours[c], fours[4 + c], fours[8 + c], fours[12 + c]);
        let low_front = call!(_mm512_shuffle_f32x4::<0x44>(a, b));
        let low_back = call!(_mm512_shuffle_f32x4::<0x44>(d, e));
        let high_front = call!(_mm512_shuffle_f32x4::<0xEE>(a, b));
        let high_back = call!(_mm512_shuffle_f32x4::<0xEE>(d, e));
        out[c] = call!(_mm512_shuffle_f32x4::<0x88>(low_front, low_back));
        out[4 + c] = call!(_mm512_shuffle_f32x4::<0xDD>(low_front, low_back));
        out[8 + c] = call!(_mm512_shuffle_f32x4::<0x88>(high_front, high_back));
        out[12 + c] = call!(_mm512_shuffle_f32x4::<0xDD>(high_front, high_back));
    }
    out
}

/// Interleaves the doubles of two vectors, low and high halves of each 128-bit quarter.
#[inline(always)]
fn doubles(a: __m512, b: __m512) -> (__m512, __m512) {
    let (a, b) = call!((_mm512_castps_pd(a), _mm512_castps_pd(b)));
    call!((_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b))))
}
