//! What the int8 kernels are written in: exact dot products of a group of a strip with the same group of a panel.

use super::sink::Sink;
use crate::kernels::lanes::Lanes;

/// Work over [`Dots`], compiled for its instructions by [`Dots::enter`]. `run` must be `#[inline(always)]`, and so must
/// everything it calls.
pub(crate) trait DotsKernel {
    /// Does the work.
    fn run<D: Dots>(self, dots: D);
}

/// One way to multiply bytes exactly. A value is a proof that this machine has the instructions.
pub(crate) trait Dots: Copy + Send + Sync + 'static {
    /// The float lanes that go with it.
    type Lanes: Lanes;
    /// Rows of a strip.
    const STRIP: usize;
    /// Elements of K whose digits share a word of 32 bits.
    const WORD: usize;
    /// What is added to a digit of an activation before it is kept. The sums start lower by so much times the sum of
    /// the weights.
    const OFFSET: i32;
    /// What a task prepares and needs until its end.
    type Session;

    /// The float lanes.
    fn lanes(self) -> Self::Lanes;
    /// Runs `kernel` compiled for these instructions.
    fn enter<K: DotsKernel>(self, kernel: K);
    /// Words of a group of this many elements, the padding included; padded weights are 0.
    fn group_words(group: usize) -> usize {
        group.div_ceil(Self::WORD)
    }
    /// Prepares products over groups of this many elements.
    fn begin(self, group: usize) -> Self::Session;
    /// Writes the digits of [`Lanes::LANES`] elements as rows hold them: [`Lanes::LANES`] · 4 / [`Dots::WORD`] bytes.
    ///
    /// # Safety
    /// `to` must be valid for writing that many bytes.
    unsafe fn store_digits(self, digits: <Self::Lanes as Lanes>::I, to: *mut u8);
    /// Puts `rows` rows of `words` words each where [`Dots::multiply`] looks for them. What is beyond the rows may be
    /// anything.
    fn arrange(self, from: &[f32], rows: usize, words: usize, strip: &mut [f32]);
    /// Gives `sink` the dot product of each row with each column of the group. Rows from `rows` on, up to
    /// [`Dots::STRIP`], may be given too, computed from anything.
    ///
    /// # Safety
    /// - `rows` is in `1..=STRIP`;
    /// - `part` points to what its fields say, and its group is of the length that `session` was begun for;
    /// - the sink accepts all rows below `STRIP` and both halves of a panel.
    unsafe fn multiply<S: Sink<Self::Lanes>>(
        self,
        session: &mut Self::Session,
        rows: usize,
        part: Part,
        sink: S,
    );
}

/// One group of a strip and of a panel.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// The strip's rows as arranged, `STRIP · row_words` words.
    pub(crate) strip: *const u8,
    /// Words of a whole row.
    pub(crate) row_words: usize,
    /// Index of the group.
    pub(crate) group: usize,
    /// Words of the group.
    pub(crate) group_words: usize,
    /// The panel's weights in this group: for each word [`Lanes::PANEL`] columns of [`Dots::WORD`] bytes.
    pub(crate) panel: *const u8,
    /// What each column's sum starts at, [`Lanes::PANEL`] of them.
    pub(crate) starts: *const i32,
}
