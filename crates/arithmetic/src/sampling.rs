//! How logits become a token: penalties, the order of candidates, the counter-based random number, the draw.

use crate::exp;

/// Candidates that a draw may ever consider: the greatest [`Sampling::top_k`].
pub const MAX_CANDIDATES: usize = 1024;
/// Temperatures below this, 2⁻⁷, choose the greatest logit.
pub const GREEDY_BELOW: f32 = f32::from_bits(0x3c00_0000);

/// How a token that has occurred before is made less likely, or more.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Penalties {
    /// Divides positive logits, and multiplies others, of tokens in the prompt or the answer so far; 1 changes nothing.
    pub repetition: f32,
    /// Subtracted once from the logit of a token that the answer so far holds.
    pub presence: f32,
    /// Subtracted for each time that the answer so far holds the token.
    pub frequency: f32,
}

/// The logit of one token under penalties and bias, in this order: where the token was `seen` (in the prompt or the
/// answer so far), `l / repetition` if `l > 0`, else `l · repetition`; where the answer so far holds it `count > 0`
/// times, `l − f32(count) · frequency` (the product is rounded), then `l − presence`; where there is a bias, `l + bias`.
#[must_use]
pub fn penalize(logit: f32, seen: bool, count: u32, penalties: &Penalties, bias: Option<f32>) -> f32 {
    let mut logit = logit;
    if seen {
        logit = if logit > 0.0 { logit / penalties.repetition } else { logit * penalties.repetition };
    }
    if count > 0 {
        logit -= count as f32 * penalties.frequency;
        logit -= penalties.presence;
    }
    match bias {
        Some(bias) => logit + bias,
        None => logit,
    }
}

/// Which candidates a draw considers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampling {
    /// Divides the logits; below [`GREEDY_BELOW`] (or NaN) the greatest logit is taken.
    pub temperature: f32,
    /// Candidates kept, 1 to [`MAX_CANDIDATES`]; what is outside is taken as the nearest within.
    pub top_k: u32,
    /// Share of the candidates' sum after which the rest is cut, in [0, 1].
    pub top_p: f32,
    /// Candidates less likely than this share of the likeliest are dropped, in [0, 1].
    pub min_p: f32,
}

/// What the random number of a draw is a function of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Draw {
    /// The job's seed.
    pub seed: u64,
    /// Which of a request's choices this is.
    pub choice: u32,
    /// Index that the chosen token will have in its sequence.
    pub position: u32,
}

/// The index of the greatest element: NaN counts as −∞, the lowest index wins ties, and a row of nothing but −∞ gives 0.
#[must_use]
pub fn argmax(x: &[f32]) -> u32 {
    let mut greatest = (f32::NEG_INFINITY, 0);
    for (index, &x) in (0..).zip(x) {
        if x > greatest.0 {
            greatest = (x, index);
        }
    }
    greatest.1
}

/// The token that is drawn from a row of logits (after [`penalize`], as stored).
///
/// Below [`GREEDY_BELOW`] it is [`argmax`]. Else, with `z = l / temperature`:
///
/// 1. keep the `top_k` greatest by (z descending, index ascending), NaN as −∞;
/// 2. `e_i = exp(z_i − z_0)`; where `e_0` is not 1 the token is the first;
/// 3. drop those with `e_i < min_p`;
/// 4. `c_i` = the running sums of e in that order, by `+`; cut after the first n with `c_n ≥ top_p · c_last`;
/// 5. the token is the first i with `c_i > u · c_n`, u being [`uniform`].
#[must_use]
pub fn sample(logits: &[f32], sampling: &Sampling, draw: &Draw) -> u32 {
    let is_drawn = sampling.temperature >= GREEDY_BELOW;
    if !is_drawn {
        return argmax(logits);
    }
    let mut best = Best::new(sampling.top_k);
    for (id, &logit) in (0..).zip(logits) {
        best.offer(Candidate::new(logit, sampling, id));
    }
    choose(best.in_order(), sampling, draw)
}

/// The token that is drawn from the candidates of [`sample`]'s first step, in their order: its other steps.
#[must_use]
pub fn choose(kept: &[Candidate], sampling: &Sampling, draw: &Draw) -> u32 {
    let Some(first) = kept.first().copied() else {
        return 0;
    };
    // exp(z − z) is 1 for a finite z, and a NaN for any other.
    if !first.z.is_finite() {
        return first.id;
    }
    let mut sums = [0.0_f32; MAX_CANDIDATES];
    let (mut count, mut sum) = (0, 0.0);
    for candidate in &kept[..kept.len().min(MAX_CANDIDATES)] {
        let weight = exp(candidate.z - first.z);
        // Candidates descend, so the first one dropped ends them.
        if weight < sampling.min_p {
            break;
        }
        sum += weight;
        sums[count] = sum;
        count += 1;
    }
    let sums = &sums[..count];
    let enough = sampling.top_p * sum;
    let cut = sums.iter().position(|&sum| sum >= enough).unwrap_or(count.saturating_sub(1));
    let threshold = uniform(draw) * sums.get(cut).copied().unwrap_or(0.0);
    let drawn = sums.iter().position(|&sum| sum > threshold).unwrap_or(cut);
    kept.get(drawn).map_or(first.id, |candidate| candidate.id)
}

/// The random number of a draw, in [0, 1): the high 24 bits of the first word of
/// [`philox4x32_10`]`((seed low, seed high), (position, choice, 0, 0))`, times 2⁻²⁴.
#[must_use]
pub fn uniform(draw: &Draw) -> f32 {
    /// 2⁻²⁴.
    const UNIT: f32 = f32::from_bits(0x3380_0000);
    let key = [draw.seed as u32, (draw.seed >> 32) as u32];
    let [word, ..] = philox4x32_10(key, [draw.position, draw.choice, 0, 0]);
    (word >> 8) as f32 * UNIT
}

/// Philox4x32 with ten rounds: a bijection of the counter for each key, by Salmon, Moraes, Dror and Shaw, "Parallel
/// random numbers: as easy as 1, 2, 3" (SC 2011).
#[must_use]
pub fn philox4x32_10(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
    const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
    let (mut key, mut x) = (key, counter);
    for _ in 0..10 {
        let products = [MULTIPLIERS[0] * u64::from(x[0]), MULTIPLIERS[1] * u64::from(x[2])];
        let [(high0, low0), (high1, low1)] = products.map(|product| ((product >> 32) as u32, product as u32));
        x = [high1 ^ x[1] ^ key[0], low1, high0 ^ x[3] ^ key[1], low0];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    x
}

/// A token and its logit over the temperature, which is never NaN.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Candidate {
    /// The quotient, −∞ for a NaN.
    pub z: f32,
    /// The token's id.
    pub id: u32,
}

impl Candidate {
    /// The token `id` with its logit.
    #[must_use]
    pub fn new(logit: f32, sampling: &Sampling, id: u32) -> Self {
        let z = logit / sampling.temperature;
        Self { z: if z.is_nan() { f32::NEG_INFINITY } else { z }, id }
    }

    /// Whether it comes before another: a total order, since no two have one id.
    #[must_use]
    pub fn before(&self, other: &Self) -> bool {
        self.z > other.z || (self.z == other.z && self.id < other.id)
    }
}

/// The first candidates in order, as a heap with the last of them on top.
struct Best {
    heap: [Candidate; MAX_CANDIDATES],
    len: usize,
    limit: usize,
}

impl Best {
    fn new(top_k: u32) -> Self {
        let limit = (top_k as usize).clamp(1, MAX_CANDIDATES);
        Self { heap: [Candidate { z: 0.0, id: 0 }; MAX_CANDIDATES], len: 0, limit }
    }

    fn offer(&mut self, candidate: Candidate) {
        if self.len < self.limit {
            self.heap[self.len] = candidate;
            self.len += 1;
            self.rise(self.len - 1);
        } else if candidate.before(&self.heap[0]) {
            self.heap[0] = candidate;
            self.sink();
        }
    }

    /// Moves an entry up while it comes after its parent.
    fn rise(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.heap[parent].before(&self.heap[at]) {
                break;
            }
            self.heap.swap(parent, at);
            at = parent;
        }
    }

    /// Moves the top down while it comes before a child.
    fn sink(&mut self) {
        let mut at = 0;
        loop {
            let mut last = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.len && self.heap[last].before(&self.heap[child]) {
                    last = child;
                }
            }
            if last == at {
                return;
            }
            self.heap.swap(at, last);
            at = last;
        }
    }

    fn in_order(&mut self) -> &[Candidate] {
        let kept = &mut self.heap[..self.len];
        kept.sort_unstable_by(|a, b| {
            if a.before(b) { core::cmp::Ordering::Less } else { core::cmp::Ordering::Greater }
        });
        kept
    }
}
