//! The vector instructions that the fast kernels are written in.
//!
//! A kernel is written once, over [`Lanes`], and compiled for every instruction set. A value that
//! implements `Lanes` is a proof that this machine has the instructions: it can be obtained from
//! detection only, which is what makes the arithmetic methods safe to call.

/// Work that is compiled once per instruction set and entered through [`Lanes::enter`].
///
/// `run` must be `#[inline(always)]`, and so must everything it calls: only code that is inlined into
/// the function that enables the instructions is compiled with them.
pub(crate) trait Kernel {
    /// What the work returns.
    type Output;

    /// Does the work with the given instructions.
    fn run<V: Lanes>(self, v: V) -> Self::Output;
}

/// A number as a panel holds it.
pub(crate) trait Element: bytemuck::Pod + Send + Sync {
    /// Widens a vector of them.
    ///
    /// # Safety
    /// `from` must be valid for reading [`Lanes::LANES`] elements.
    unsafe fn load<V: Lanes>(v: V, from: *const Self) -> V::F;
}

/// bfloat16.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(crate) struct Bf16(pub(crate) u16);

/// IEEE binary16.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(crate) struct F16(pub(crate) u16);

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(v: V, from: *const Self) -> V::F {
        // SAFETY: the caller vouches for the elements.
        unsafe { v.load_from(from) }
    }
}

impl Element for Bf16 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(v: V, from: *const Self) -> V::F {
        // SAFETY: the caller vouches for the elements, which are shorts.
        unsafe { v.load_bf16_from(from.cast()) }
    }
}

impl Element for F16 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(v: V, from: *const Self) -> V::F {
        // SAFETY: the caller vouches for the elements, which are shorts.
        unsafe { v.load_f16_from(from.cast()) }
    }
}

/// One vector instruction set: `F` holds [`Lanes::LANES`] floats, all operations are IEEE-754 binary32
/// with round to nearest even, lane by lane.
pub(crate) trait Lanes: Copy + Send + Sync + 'static {
    /// Floats in a vector.
    const LANES: usize;
    /// Columns of a panel: two vectors.
    const PANEL: usize = 2 * Self::LANES;
    /// Rows that the register tile of a matrix product holds.
    const STRIP: usize;
    /// A vector of floats.
    type F: Copy;
    /// A vector of as many 32-bit integers.
    type I: Copy;
    /// One truth value per lane.
    type M: Copy;

    /// Runs `kernel` compiled for these instructions.
    fn enter<K: Kernel>(self, kernel: K) -> K::Output;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F;
    /// The first [`Lanes::LANES`] floats of `from`; panics if there are fewer.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F {
        let from = &from[..Self::LANES];
        // SAFETY: the slice above holds LANES floats.
        unsafe { self.load_from(from.as_ptr()) }
    }
    /// Writes the lanes to the start of `to`; panics if it is too short.
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32]) {
        let to = &mut to[..Self::LANES];
        // SAFETY: the slice above holds LANES floats.
        unsafe { self.store_to(x, to.as_mut_ptr()) }
    }
    /// Loads without a bounds check.
    ///
    /// # Safety
    /// `from` must be valid for reading [`Lanes::LANES`] floats.
    unsafe fn load_from(self, from: *const f32) -> Self::F;
    /// Stores without a bounds check.
    ///
    /// # Safety
    /// `to` must be valid for writing [`Lanes::LANES`] floats.
    unsafe fn store_to(self, x: Self::F, to: *mut f32);
    /// Loads bfloat16, widened.
    ///
    /// # Safety
    /// `from` must be valid for reading [`Lanes::LANES`] shorts; it need not be aligned.
    unsafe fn load_bf16_from(self, from: *const u16) -> Self::F;
    /// Loads IEEE binary16, widened, its subnormals included.
    ///
    /// # Safety
    /// `from` must be valid for reading [`Lanes::LANES`] shorts; it need not be aligned.
    unsafe fn load_f16_from(self, from: *const u16) -> Self::F;
    /// Transposes a square of [`Lanes::LANES`] × [`Lanes::LANES`] floats: `to[k][i] = from[i][k]`.
    /// Only `rows` rows of `from` are read; the others count as zeros. Rows of `to` are written in
    /// ascending order, each [`Lanes::LANES`] wide, so a `to_stride` below that is allowed: a row then
    /// overwrites what the row before wrote beyond its stride.
    ///
    /// # Safety
    /// For every `i < rows`, `from + i·from_stride` must be valid for reading `LANES` floats, and for
    /// every `k < LANES`, `to + k·to_stride` for writing as many. The two must not overlap.
    unsafe fn transpose(
        self,
        from: *const f32,
        from_stride: usize,
        rows: usize,
        to: *mut f32,
        to_stride: usize,
    );

    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a − b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a` where `a > b`, else `b`: also where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;

    /// `a < b`, false where either is NaN.
    fn less(self, a: Self::F, b: Self::F) -> Self::M;
    /// Whether `a` is NaN.
    fn is_nan(self, a: Self::F) -> Self::M;
    /// `yes` where `mask`, else `no`.
    fn select(self, mask: Self::M, yes: Self::F, no: Self::F) -> Self::F;

    /// All lanes the integer `x`.
    fn splat_int(self, x: i32) -> Self::I;
    /// The bits of the floats.
    fn bits(self, a: Self::F) -> Self::I;
    /// The floats with these bits.
    fn float(self, a: Self::I) -> Self::F;
    /// Wrapping integer sum.
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise and.
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise or.
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    /// Shifts left by `N` bits.
    fn shift_left<const N: i32>(self, a: Self::I) -> Self::I;
    /// Shifts right by `N` bits, filling with the sign.
    fn shift_right<const N: i32>(self, a: Self::I) -> Self::I;
    /// `a − b`, wrapping.
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I;
    /// The lesser.
    fn min_int(self, a: Self::I, b: Self::I) -> Self::I;
    /// The greater.
    fn max_int(self, a: Self::I, b: Self::I) -> Self::I;
    /// The greatest of all lanes.
    fn greatest_int(self, a: Self::I) -> i32;
    /// The nearest integers, ties to even; anything for a NaN and beyond ±2³¹.
    fn round(self, a: Self::F) -> Self::I;
    /// The nearest floats, ties to even.
    fn to_float(self, a: Self::I) -> Self::F;
    /// Loads integers.
    ///
    /// # Safety
    /// `from` must be valid for reading [`Lanes::LANES`] integers; it need not be aligned.
    unsafe fn load_int_from(self, from: *const i32) -> Self::I;
    /// Stores the lowest byte of each lane.
    ///
    /// # Safety
    /// `to` must be valid for writing [`Lanes::LANES`] bytes.
    unsafe fn store_low_bytes(self, a: Self::I, to: *mut u8);
    /// Stores the two lowest bytes of each lane.
    ///
    /// # Safety
    /// `to` must be valid for writing 2 · [`Lanes::LANES`] bytes; it need not be aligned.
    unsafe fn store_low_shorts(self, a: Self::I, to: *mut u8);
}
