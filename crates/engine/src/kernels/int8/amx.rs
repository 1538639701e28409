//! [`Dots`] by AMX: tiles of 16 rows of 64 bytes.
//!
//! A strip is two tiles high, a panel two tiles wide: four tiles of sums, for which every step along K loads two tiles of
//! rows and two of weights. Rows stay row-major. Weights are in the layout of VNNI, four elements of K to a word, which is
//! what a tile of the second operand wants. Groups are padded to whole steps, strips to whole tiles, and what
//! comes of the padding is not read.
//!
//! The kernel is written over [`Tiles`], so that tests can run it on emulated tiles where there is no AMX.

use std::arch::asm;
use std::arch::x86_64::__m512i;

use super::dots::{Dots, DotsKernel, Part};
use super::sink::Sink;
use crate::kernels::avx512::Avx512;
use crate::kernels::lanes::Lanes;

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Bytes of a row of a tile.
const TILE_BYTES: usize = 64;
/// Columns of a panel.
const COLUMNS: usize = 2 * TILE_ROWS;
/// Bytes of a word of all columns of a panel.
const PANEL_STEP: usize = COLUMNS * 4;
/// Bytes of a row of sums.
const SUM_STEP: usize = COLUMNS * size_of::<i32>();

/// The eight tiles of a core: 0 to 3 hold sums, 4 and 5 rows, 6 and 7 weights.
pub(crate) trait Tiles: Sized {
    /// Gives the tiles their sizes; rows and weights have `depth` elements of K, a multiple of 4, at most 64.
    fn configure(depth: usize) -> Self;
    /// Sets tile `T` to zeros.
    fn zero<const T: u8>(&mut self);
    /// Loads tile `T`: its row `i` from `from + i·stride`.
    ///
    /// # Safety
    /// All rows of the tile must be readable there.
    unsafe fn load<const T: u8>(&mut self, from: *const u8, stride: usize);
    /// Stores tile `T`: its row `i` to `to + i·stride`.
    ///
    /// # Safety
    /// All rows of the tile must be writable there.
    unsafe fn store<const T: u8>(&mut self, to: *mut u8, stride: usize);
    /// `sums[i][j] += Σ rows[i][k] · weights[k][j]`, of tiles `SUMS`, `ROWS` and `WEIGHTS`.
    fn dot<const SUMS: u8, const ROWS: u8, const WEIGHTS: u8>(&mut self);
}

/// The layout that `ldtilecfg` reads: palette 1, bytes of a row at 16, rows at 48.
#[repr(C, align(64))]
pub(super) struct TileConfiguration(pub(super) [u8; 64]);

impl TileConfiguration {
    pub(super) fn new(depth: usize) -> Self {
        assert!((4..=TILE_BYTES).contains(&depth) && depth.is_multiple_of(4), "whole words, at most a tile");
        let mut bytes = [0; 64];
        bytes[0] = 1;
        for tile in 0..8 {
            let (row_bytes, rows) = match tile {
                4 | 5 => (depth, TILE_ROWS),
                6 | 7 => (TILE_BYTES, depth / 4),
                _ => (TILE_BYTES, TILE_ROWS),
            };
            bytes[16 + 2 * tile] = row_bytes as u8;
            bytes[48 + tile] = rows as u8;
        }
        Self(bytes)
    }
}

/// The tiles of the core that runs this thread, configured until this is dropped. Cannot leave the thread.
pub(crate) struct CoreTiles(std::marker::PhantomData<*mut ()>);

/// An instruction that changes tiles. The compiler never keeps anything in them, so what one such statement leaves
/// there the next one finds: they are volatile and stay in order.
macro_rules! tile_asm {
    ($($argument:tt)*) => {
        asm!(
            $($argument)*,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags)
        )
    };
}

impl Tiles for CoreTiles {
    #[inline(always)]
    fn configure(depth: usize) -> Self {
        let configuration = TileConfiguration::new(depth);
        // SAFETY: the instruction exists and is permitted: `Amx<CoreTiles>` comes from `detect` alone. It reads the 64
        // bytes of a valid configuration.
        unsafe { tile_asm!("ldtilecfg [{}]", in(reg) configuration.0.as_ptr()) };
        Self(std::marker::PhantomData)
    }

    #[inline(always)]
    fn zero<const T: u8>(&mut self) {
        // SAFETY: the tiles are configured.
        unsafe { tile_asm!("tilezero tmm{t}", t = const T) };
    }

    #[inline(always)]
    unsafe fn load<const T: u8>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: the tiles are configured; the caller vouches for the memory.
        unsafe {
            tile_asm!("tileloadd tmm{t}, [{from} + {stride}*1]", t = const T, from = in(reg) from, stride = in(reg) stride);
        }
    }

    #[inline(always)]
    unsafe fn store<const T: u8>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: the tiles are configured; the caller vouches for the memory.
        unsafe {
            tile_asm!("tilestored [{to} + {stride}*1], tmm{t}", t = const T, to = in(reg) to, stride = in(reg) stride);
        }
    }

    #[inline(always)]
    fn dot<const SUMS: u8, const ROWS: u8, const WEIGHTS: u8>(&mut self) {
        // SAFETY: the tiles are configured, with sizes that fit each other.
        unsafe {
            tile_asm!(
                "tdpbssd tmm{sums}, tmm{rows}, tmm{weights}",
                sums = const SUMS, rows = const ROWS, weights = const WEIGHTS
            );
        }
    }
}

impl Drop for CoreTiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the instruction exists, as `configure` says. Without it the kernel would save tiles for this thread at
        // every switch.
        unsafe { tile_asm!("tilerelease") };
    }
}

/// The kernel on tiles `T`, with what goes around it on AVX-512.
pub(crate) struct Amx<T> {
    lanes: Avx512,
    tiles: std::marker::PhantomData<fn() -> T>,
}

impl<T> Clone for Amx<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Amx<T> {}

impl<T> std::fmt::Debug for Amx<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Amx")
    }
}

impl Amx<CoreTiles> {
    /// The proof that this machine has AMX for bytes and that this process may use it.
    pub(crate) fn detect() -> Option<Self> {
        let lanes = Avx512::detect()?;
        permission::granted().then_some(Self { lanes, tiles: std::marker::PhantomData })
    }
}

#[cfg(test)]
impl<T> Amx<T> {
    /// The kernel on other tiles than the core's.
    pub(super) fn emulated(lanes: Avx512) -> Self {
        Self { lanes, tiles: std::marker::PhantomData }
    }
}

/// Elements of K that a tile takes at once.
fn tile_depth(group: usize) -> usize {
    group.next_multiple_of(4).min(TILE_BYTES)
}

/// The tiles while a task lasts, and room for a strip's sums.
pub(crate) struct Session<T> {
    tiles: T,
    depth: usize,
    sums: Sums,
}

#[repr(align(64))]
struct Sums([[i32; COLUMNS]; 2 * TILE_ROWS]);

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn enter<T: Tiles + 'static, K: DotsKernel>(amx: Amx<T>, kernel: K) {
    kernel.run(amx);
}

impl<T: Tiles + 'static> Dots for Amx<T> {
    type Lanes = Avx512;
    const STRIP: usize = 2 * TILE_ROWS;
    const WORD: usize = 4;
    const OFFSET: i32 = 0;
    type Session = Session<T>;

    #[inline(always)]
    fn lanes(self) -> Avx512 {
        self.lanes
    }

    #[inline(always)]
    fn enter<K: DotsKernel>(self, kernel: K) {
        // SAFETY: an `Avx512` exists only where detection has found the instructions.
        unsafe { enter(self, kernel) }
    }

    fn group_words(group: usize) -> usize {
        group.next_multiple_of(tile_depth(group)) / Self::WORD
    }

    #[inline(always)]
    fn begin(self, group: usize) -> Session<T> {
        let depth = tile_depth(group);
        let sums = Sums([[0; COLUMNS]; 2 * TILE_ROWS]);
        Session { tiles: T::configure(depth), depth, sums }
    }

    #[inline(always)]
    unsafe fn store_digits(self, digits: __m512i, to: *mut u8) {
        // SAFETY: the caller vouches for a byte for each of sixteen digits.
        unsafe { self.lanes.store_low_bytes(digits, to) }
    }

    #[inline(always)]
    fn arrange(self, from: &[f32], rows: usize, words: usize, strip: &mut [f32]) {
        strip[..rows * words].copy_from_slice(&from[..rows * words]);
    }

    #[inline(always)]
    unsafe fn multiply<S: Sink<Avx512>>(self, session: &mut Session<T>, rows: usize, part: Part, sink: S) {
        let Session { tiles, depth, sums } = session;
        let (row_bytes, group_bytes) = (part.row_words * 4, part.group_words * 4);
        let first = part.strip.wrapping_add(part.group * group_bytes);
        let second = first.wrapping_add(TILE_ROWS * row_bytes);
        let two_high = rows > TILE_ROWS;
        tiles.zero::<0>();
        tiles.zero::<1>();
        if two_high {
            tiles.zero::<2>();
            tiles.zero::<3>();
        }
        for k in (0..group_bytes).step_by(*depth) {
            let weights = part.panel.wrapping_add(k / 4 * PANEL_STEP);
            // SAFETY: k + depth ≤ group_bytes, which is a multiple of depth. The strip holds STRIP rows of row_bytes, the
            // panel group_bytes / 4 words of PANEL_STEP bytes, 64 of them for each tile.
            unsafe {
                tiles.load::<6>(weights, PANEL_STEP);
                tiles.load::<7>(weights.add(TILE_BYTES), PANEL_STEP);
                tiles.load::<4>(first.add(k), row_bytes);
                tiles.dot::<0, 4, 6>();
                tiles.dot::<1, 4, 7>();
                if two_high {
                    tiles.load::<5>(second.add(k), row_bytes);
                    tiles.dot::<2, 5, 6>();
                    tiles.dot::<3, 5, 7>();
                }
            }
        }
        // SAFETY: the sums have two tiles of rows, each as wide as two tiles; the sink accepts what the caller vouches for.
        unsafe {
            let to: *mut u8 = sums.0.as_mut_ptr().cast();
            tiles.store::<0>(to, SUM_STEP);
            tiles.store::<1>(to.add(TILE_BYTES), SUM_STEP);
            if two_high {
                let to = to.add(TILE_ROWS * SUM_STEP);
                tiles.store::<2>(to, SUM_STEP);
                tiles.store::<3>(to.add(TILE_BYTES), SUM_STEP);
            }
            for (row, sums) in sums.0.iter().enumerate().take(rows) {
                let v = self.lanes;
                sink.take(v, row, 0, v.load_int_from(sums.as_ptr()));
                sink.take(v, row, 1, v.load_int_from(sums[TILE_ROWS..].as_ptr()));
            }
        }
    }
}

/// The leave to use AMX, which a process has to ask its kernel for.
mod permission {
    use std::arch::x86_64::{__cpuid_count, _xgetbv};
    use std::sync::OnceLock;

    /// Whether the machine has AMX for bytes and this process may use it; asks once.
    pub(super) fn granted() -> bool {
        static GRANTED: OnceLock<bool> = OnceLock::new();
        *GRANTED.get_or_init(|| machine_has_it() && request())
    }

    fn machine_has_it() -> bool {
        const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
        const TILE_STATE: u64 = 1 << 17 | 1 << 18;
        #[target_feature(enable = "xsave")]
        fn enabled_state() -> u64 {
            // SAFETY: register 0 exists wherever the instruction does.
            unsafe { _xgetbv(0) }
        }
        // Leaf 7 exists where AVX-512 does, which the caller has found.
        let has_instructions = __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8;
        // SAFETY: the feature is found before it is used.
        has_instructions
            && is_x86_feature_detected!("xsave")
            && unsafe { enabled_state() } & TILE_STATE == TILE_STATE
    }

    #[cfg(target_os = "linux")]
    fn request() -> bool {
        const ARCH_PRCTL: isize = 158;
        const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
        const XFEATURE_XTILEDATA: usize = 18;
        let result: isize;
        // SAFETY: a system call that reads and writes no memory; it clobbers rcx and r11 as every one does.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack)
            );
        }
        result == 0
    }

    #[cfg(not(target_os = "linux"))]
    fn request() -> bool {
        false
    }
}
