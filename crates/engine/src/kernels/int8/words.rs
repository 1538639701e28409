//! [`Dots`] by instructions that multiply the bytes of a word and add the products to a lane: VNNI, or multiplication
//! of 16-bit integers.
//!
//! The register tile is that of the f32 product: a strip's rows against the two vectors of a panel, all sums in
//! registers. `vpdpbusd` takes unsigned bytes on one side, so digits are kept with 128 added, and the sums start lower
//! to make up for it; they wrap on their way and end right. Without VNNI, bytes are widened for `vpmaddwd`, which cannot
//! overflow; `vpmaddubsw` would saturate.

use std::arch::x86_64::*;

use super::dots::{Dots, DotsKernel, Part};
use super::sink::Sink;
use crate::kernels::avx2::Avx2;
use crate::kernels::avx512::Avx512;
use crate::kernels::lanes::Lanes;
use crate::kernels::pack::PackGroup;

/// Multiplication of words.
pub(crate) trait WordDots: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// The float lanes that go with it; their integers hold a word in each lane.
    type Lanes: Lanes;
    /// See [`Dots::WORD`].
    const WORD: usize;
    /// See [`Dots::OFFSET`].
    const OFFSET: i32;

    /// The float lanes.
    fn lanes(self) -> Self::Lanes;
    /// See [`Dots::enter`].
    fn enter<K: DotsKernel>(self, kernel: K);
    /// See [`Dots::store_digits`].
    ///
    /// # Safety
    /// As there.
    unsafe fn store_digits(self, digits: <Self::Lanes as Lanes>::I, to: *mut u8);
    /// The weights of one word of [`Lanes::LANES`] columns.
    ///
    /// # Safety
    /// `from` must be valid for reading `LANES · WORD` bytes.
    unsafe fn load_weights(self, from: *const u8) -> <Self::Lanes as Lanes>::I;
    /// Adds the products of each lane's word to the lane's sum.
    fn dot(
        self,
        sums: <Self::Lanes as Lanes>::I,
        digits: <Self::Lanes as Lanes>::I,
        weights: <Self::Lanes as Lanes>::I,
    ) -> <Self::Lanes as Lanes>::I;
}

/// [`Dots`] by [`WordDots`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words<W>(pub(crate) W);

impl<W: WordDots> Dots for Words<W> {
    type Lanes = W::Lanes;
    const STRIP: usize = W::Lanes::STRIP;
    const WORD: usize = W::WORD;
    const OFFSET: i32 = W::OFFSET;
    type Session = ();

    #[inline(always)]
    fn lanes(self) -> W::Lanes {
        self.0.lanes()
    }

    #[inline(always)]
    fn enter<K: DotsKernel>(self, kernel: K) {
        self.0.enter(kernel);
    }

    #[inline(always)]
    fn begin(self, _: usize) {}

    #[inline(always)]
    unsafe fn store_digits(self, digits: <W::Lanes as Lanes>::I, to: *mut u8) {
        // SAFETY: the caller vouches for the room.
        unsafe { self.0.store_digits(digits, to) };
    }

    /// Word `k` of all rows side by side.
    #[inline(always)]
    fn arrange(self, from: &[f32], rows: usize, words: usize, strip: &mut [f32]) {
        use crate::kernels::lanes::Kernel as _;
        PackGroup { from, stride: words, rows, depth: words, group: Self::STRIP, out: strip }
            .run(self.lanes());
    }

    #[inline(always)]
    unsafe fn multiply<S: Sink<W::Lanes>>(self, (): &mut (), rows: usize, part: Part, sink: S) {
        macro_rules! tile {
            ($height:literal) => {
                // SAFETY: the height is at most STRIP, so the caller's promises cover it.
                unsafe { tile::<W, S, $height>(self.0, part, sink) }
            };
        }
        match rows {
            1 => tile!(1),
            2 => tile!(2),
            3..=4 => tile!(4),
            5..=6 => tile!(6),
            _ if Self::STRIP == 6 => unreachable!("at most STRIP rows"),
            7..=10 => tile!(10),
            _ => tile!(14),
        }
    }
}

/// [`Dots::multiply`] for a height that the compiler knows.
///
/// # Safety
/// As there, with `HEIGHT` for `STRIP`.
#[inline(always)]
unsafe fn tile<W: WordDots, S: Sink<W::Lanes>, const HEIGHT: usize>(w: W, part: Part, sink: S) {
    let v = w.lanes();
    let (lanes, strip_rows) = (W::Lanes::LANES, W::Lanes::STRIP);
    let words = part.strip.cast::<i32>().wrapping_add(part.group * part.group_words * strip_rows);
    // SAFETY: there are starts for the two vectors of a panel.
    let starts = unsafe { [v.load_int_from(part.starts), v.load_int_from(part.starts.add(lanes))] };
    let mut sums = [starts; HEIGHT];
    for word in 0..part.group_words {
        let (words, panel) =
            (words.wrapping_add(word * strip_rows), part.panel.wrapping_add(word * 2 * lanes * W::WORD));
        // SAFETY: word < group_words; the strip has STRIP ≥ HEIGHT rows of it, the panel two vectors of columns.
        unsafe {
            let weights = [w.load_weights(panel), w.load_weights(panel.add(lanes * W::WORD))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let digits = v.splat_int(*words.add(i));
                sums[0] = w.dot(sums[0], digits, weights[0]);
                sums[1] = w.dot(sums[1], digits, weights[1]);
            }
        }
    }
    // Written out: a loop would take the sums through memory.
    macro_rules! take {
        ($($row:literal)*) => { $(
            if let Some(&[low, high]) = sums.get($row) {
                // SAFETY: the sink accepts rows below STRIP and both halves.
                unsafe {
                    sink.take(v, $row, 0, low);
                    sink.take(v, $row, 1, high);
                }
            }
        )* };
    }
    const { assert!(HEIGHT <= 14, "every row of the tile is taken") };
    take!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
}

/// `vpmaddwd` on widened bytes, where there is no VNNI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Widened<V>(pub(crate) V);

/// VNNI on 256 bits, in its VEX encoding. Proof that this machine has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AvxVnni(Avx2);

/// VNNI on 512 bits. Proof that this machine has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512Vnni(Avx512);

impl AvxVnni {
    /// The proof, where the machine gives it.
    pub(crate) fn detect() -> Option<Self> {
        if is_x86_feature_detected!("avxvnni") { Avx2::detect().map(Self) } else { None }
    }
}

impl Avx512Vnni {
    /// The proof, where the machine gives it.
    pub(crate) fn detect() -> Option<Self> {
        if is_x86_feature_detected!("avx512vnni") { Avx512::detect().map(Self) } else { None }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn enter_avx2<K: DotsKernel>(w: Widened<Avx2>, kernel: K) {
    kernel.run(Words(w));
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn enter_avx_vnni<K: DotsKernel>(w: AvxVnni, kernel: K) {
    kernel.run(Words(w));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn enter_avx512<K: DotsKernel>(w: Widened<Avx512>, kernel: K) {
    kernel.run(Words(w));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn enter_avx512_vnni<K: DotsKernel>(w: Avx512Vnni, kernel: K) {
    kernel.run(Words(w));
}

impl WordDots for Widened<Avx2> {
    type Lanes = Avx2;
    const WORD: usize = 2;
    const OFFSET: i32 = 0;

    #[inline(always)]
    fn lanes(self) -> Avx2 {
        self.0
    }

    #[inline(always)]
    fn enter<K: DotsKernel>(self, kernel: K) {
        // SAFETY: an `Avx2` exists only where detection has found the instructions.
        unsafe { enter_avx2(self, kernel) }
    }

    #[inline(always)]
    unsafe fn store_digits(self, digits: __m256i, to: *mut u8) {
        // SAFETY: the caller vouches for two bytes for each of eight digits.
        unsafe { self.0.store_low_shorts(digits, to) }
    }

    #[inline(always)]
    unsafe fn load_weights(self, from: *const u8) -> __m256i {
        // SAFETY: the caller vouches for sixteen bytes; the instructions exist.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    fn dot(self, sums: __m256i, digits: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: the instructions exist.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(digits, weights)) }
    }
}

impl WordDots for Widened<Avx512> {
    type Lanes = Avx512;
    const WORD: usize = 2;
    const OFFSET: i32 = 0;

    #[inline(always)]
    fn lanes(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn enter<K: DotsKernel>(self, kernel: K) {
        // SAFETY: an `Avx512` exists only where detection has found the instructions.
        unsafe { enter_avx512(self, kernel) }
    }

    #[inline(always)]
    unsafe fn store_digits(self, digits: __m512i, to: *mut u8) {
        // SAFETY: the caller vouches for two bytes for each of sixteen digits.
        unsafe { self.0.store_low_shorts(digits, to) }
    }

    #[inline(always)]
    unsafe fn load_weights(self, from: *const u8) -> __m512i {
        // SAFETY: the caller vouches for 32 bytes; the instructions exist.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, digits: __m512i, weights: __m512i) -> __m512i {
        // SAFETY: the instructions exist.
        unsafe { _mm512_add_epi32(sums, _mm512_madd_epi16(digits, weights)) }
    }
}

impl WordDots for AvxVnni {
    type Lanes = Avx2;
    const WORD: usize = 4;
    const OFFSET: i32 = 128;

    #[inline(always)]
    fn lanes(self) -> Avx2 {
        self.0
    }

    #[inline(always)]
    fn enter<K: DotsKernel>(self, kernel: K) {
        // SAFETY: an `AvxVnni` exists only where detection has found the instructions.
        unsafe { enter_avx_vnni(self, kernel) }
    }

    #[inline(always)]
    unsafe fn store_digits(self, digits: __m256i, to: *mut u8) {
        let v = self.0;
        // SAFETY: the caller vouches for a byte for each of eight digits.
        unsafe { v.store_low_bytes(v.add_int(digits, v.splat_int(Self::OFFSET)), to) }
    }

    #[inline(always)]
    unsafe fn load_weights(self, from: *const u8) -> __m256i {
        // SAFETY: the caller vouches for 32 bytes; the instructions exist.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    fn dot(self, sums: __m256i, digits: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: the instructions exist.
        unsafe { _mm256_dpbusd_avx_epi32(sums, digits, weights) }
    }
}

impl WordDots for Avx512Vnni {
    type Lanes = Avx512;
    const WORD: usize = 4;
    const OFFSET: i32 = 128;

    #[inline(always)]
    fn lanes(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn enter<K: DotsKernel>(self, kernel: K) {
        // SAFETY: an `Avx512Vnni` exists only where detection has found the instructions.
        unsafe { enter_avx512_vnni(self, kernel) }
    }

    #[inline(always)]
    unsafe fn store_digits(self, digits: __m512i, to: *mut u8) {
        let v = self.0;
        // SAFETY: the caller vouches for a byte for each of sixteen digits.
        unsafe { v.store_low_bytes(v.add_int(digits, v.splat_int(Self::OFFSET)), to) }
    }

    #[inline(always)]
    unsafe fn load_weights(self, from: *const u8) -> __m512i {
        // SAFETY: the caller vouches for 64 bytes; the instructions exist.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, digits: __m512i, weights: __m512i) -> __m512i {
        // SAFETY: the instructions exist.
        unsafe { _mm512_dpbusd_epi32(sums, digits, weights) }
    }
}
