//! What a submitter asks of a language model: the prompt, how tokens are drawn, and where the answer stops.

use std::hash::{Hash, Hasher};

use gainsay_arithmetic::sampling as arithmetic;
use gainsay_commitment::encoding::{DecodeError, Decoder, Encoder};

use crate::limits::MAX_JOB_TOKENS;

/// Token ids that a request may bias.
pub const MAX_LOGIT_BIASES: usize = 1024;
/// Stop strings of a request.
pub const MAX_STOP_STRINGS: usize = 4;
/// Bytes of a stop string.
pub const MAX_STOP_BYTES: usize = 256;
/// Candidates that a draw considers at most.
pub const MAX_TOP_K: u32 = arithmetic::MAX_CANDIDATES as u32;
/// The greatest temperature.
pub const MAX_TEMPERATURE: f32 = 100.0;
/// The greatest repetition penalty; the least is its inverse.
pub const MAX_REPETITION_PENALTY: f32 = 128.0;
/// The greatest magnitude of a presence penalty, a frequency penalty and a bias.
pub const MAX_PENALTY: f32 = 100.0;

/// How the next token follows from the logits: parameters of the ops `Penalize` and `Sample`. They are part of the job's
/// input, bit for bit, so that equality is equality of bits.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// Divides the logits; below 2⁻⁷ the greatest logit is taken instead.
    pub temperature: f32,
    /// Candidates considered, at least 1 and at most [`MAX_TOP_K`].
    pub top_k: u32,
    /// Share of the candidates' probability that is kept, in [0, 1].
    pub top_p: f32,
    /// Candidates less probable than this share of the most probable one are dropped; in [0, 1].
    pub min_p: f32,
    /// Divides positive and multiplies other logits of tokens that occur in the prompt or the answer so far.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens that occur in the answer so far.
    pub presence_penalty: f32,
    /// Subtracted once for each time that a token occurs in the answer so far.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens; ids ascend strictly.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Which of several answers to one request this is; drawn from other random numbers.
    pub choice: u32,
}

impl Default for Sampling {
    /// Greedy, without penalties.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: MAX_TOP_K,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            choice: 0,
        }
    }
}

/// Why a request is refused, whatever model it is for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// A parameter outside its range, or not a number.
    #[error("{name} must be between {range}")]
    OutOfRange {
        /// The parameter.
        name: &'static str,
        /// The least and the greatest value that are allowed.
        range: String,
    },
    /// Biases out of order, given twice, or too many.
    #[error("logit_bias must list at most {MAX_LOGIT_BIASES} token ids in ascending order, each once")]
    LogitBias,
    /// Too many stop strings, or one that is empty or too long.
    #[error("stop must list at most {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_BYTES} bytes")]
    Stop,
}

fn in_range(name: &'static str, found: f32, min: f32, max: f32) -> Result<(), RequestError> {
    if (min..=max).contains(&found) {
        Ok(())
    } else {
        Err(RequestError::OutOfRange { name, range: format!("{min} and {max}") })
    }
}

fn count_in_range(name: &'static str, found: u32, max: u32) -> Result<(), RequestError> {
    if (1..=max).contains(&found) {
        Ok(())
    } else {
        Err(RequestError::OutOfRange { name, range: format!("1 and {max}") })
    }
}

impl Sampling {
    /// Refuses parameters outside their ranges.
    pub fn check(&self) -> Result<(), RequestError> {
        in_range("temperature", self.temperature, 0.0, MAX_TEMPERATURE)?;
        count_in_range("top_k", self.top_k, MAX_TOP_K)?;
        in_range("top_p", self.top_p, 0.0, 1.0)?;
        in_range("min_p", self.min_p, 0.0, 1.0)?;
        let least = 1.0 / MAX_REPETITION_PENALTY;
        in_range("repetition_penalty", self.repetition_penalty, least, MAX_REPETITION_PENALTY)?;
        in_range("presence_penalty", self.presence_penalty, -MAX_PENALTY, MAX_PENALTY)?;
        in_range("frequency_penalty", self.frequency_penalty, -MAX_PENALTY, MAX_PENALTY)?;
        let biases = &self.logit_bias;
        if biases.len() > MAX_LOGIT_BIASES || biases.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(RequestError::LogitBias);
        }
        biases.iter().try_for_each(|&(_, bias)| in_range("logit_bias", bias, -MAX_PENALTY, MAX_PENALTY))
    }

    /// What is added to the logit of a token, or nothing.
    pub fn bias_of(&self, token: u32) -> Option<f32> {
        let index = self.logit_bias.binary_search_by_key(&token, |&(id, _)| id).ok()?;
        self.logit_bias.get(index).map(|&(_, bias)| bias)
    }

    /// The penalties as the arithmetic takes them.
    pub const fn penalties(&self) -> arithmetic::Penalties {
        arithmetic::Penalties {
            repetition: self.repetition_penalty,
            presence: self.presence_penalty,
            frequency: self.frequency_penalty,
        }
    }

    /// Which candidates a draw considers, as the arithmetic takes it.
    pub const fn candidates(&self) -> arithmetic::Sampling {
        arithmetic::Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
        }
    }

    /// What the random number is a function of for the token that stands at `position` of its sequence.
    pub const fn draw(&self, position: u32) -> arithmetic::Draw {
        arithmetic::Draw { seed: self.seed, choice: self.choice, position }
    }

    const fn floats(&self) -> [f32; 6] {
        [
            self.temperature,
            self.top_p,
            self.min_p,
            self.repetition_penalty,
            self.presence_penalty,
            self.frequency_penalty,
        ]
    }

    /// Appends all parameters, floats as bits.
    pub fn encode(&self, encoder: &mut Encoder) {
        for float in self.floats() {
            encoder.f32_bits(float);
        }
        encoder.u32(self.top_k).list(&self.logit_bias, |encoder, &(token, bias)| {
            encoder.u32(token).f32_bits(bias);
        });
        encoder.u64(self.seed).u32(self.choice);
    }

    /// Reads what [`encode`](Self::encode) wrote, and refuses what [`check`](Self::check) refuses.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let sampling = Self {
            temperature: decoder.f32_bits()?,
            top_p: decoder.f32_bits()?,
            min_p: decoder.f32_bits()?,
            repetition_penalty: decoder.f32_bits()?,
            presence_penalty: decoder.f32_bits()?,
            frequency_penalty: decoder.f32_bits()?,
            top_k: decoder.u32()?,
            logit_bias: decoder
                .list(MAX_LOGIT_BIASES, |decoder| Ok((decoder.u32()?, decoder.f32_bits()?)))?,
            seed: decoder.u64()?,
            choice: decoder.u32()?,
        };
        sampling.check().map_err(|_| DecodeError::Invalid("a sampling parameter is out of its range"))?;
        Ok(sampling)
    }

    /// What equality and hashes are taken of.
    fn bits(&self) -> ([u32; 6], u32, u64, u32, impl Iterator<Item = (u32, u32)> + '_) {
        let biases = self.logit_bias.iter().map(|&(token, bias)| (token, bias.to_bits()));
        (self.floats().map(f32::to_bits), self.top_k, self.seed, self.choice, biases)
    }
}

impl PartialEq for Sampling {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.bits(), other.bits());
        (a.0, a.1, a.2, a.3) == (b.0, b.1, b.2, b.3) && a.4.eq(b.4)
    }
}

impl Eq for Sampling {}

impl Hash for Sampling {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (floats, top_k, seed, choice, biases) = self.bits();
        (floats, top_k, seed, choice).hash(state);
        biases.for_each(|bias| bias.hash(state));
    }
}

/// Where an answer ends: at an end token of the model, at a stop string, or at a number of tokens. What comes first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StopRules {
    /// Tokens of the longest answer; at least 1.
    pub max_tokens: u32,
    /// The answer ends with the token whose bytes complete one of these.
    pub stop: Vec<Vec<u8>>,
    /// Whether the model's end tokens are tokens like any other.
    pub ignore_eos: bool,
}

impl StopRules {
    /// At most so many tokens, and no stop strings.
    #[must_use]
    pub const fn max_tokens(max_tokens: u32) -> Self {
        Self { max_tokens, stop: Vec::new(), ignore_eos: false }
    }

    /// Refuses rules outside their limits.
    pub fn check(&self) -> Result<(), RequestError> {
        count_in_range("max_tokens", self.max_tokens, MAX_JOB_TOKENS as u32)?;
        let fits = |stop: &Vec<u8>| (1..=MAX_STOP_BYTES).contains(&stop.len());
        if self.stop.len() <= MAX_STOP_STRINGS && self.stop.iter().all(fits) {
            Ok(())
        } else {
            Err(RequestError::Stop)
        }
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.u32(self.max_tokens).list(&self.stop, |encoder, stop| {
            encoder.bytes(stop);
        });
        encoder.bool(self.ignore_eos);
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let rules = Self {
            max_tokens: decoder.u32()?,
            stop: decoder.list(MAX_STOP_STRINGS, |decoder| decoder.bytes(MAX_STOP_BYTES))?,
            ignore_eos: decoder.bool()?,
        };
        rules.check().map_err(|_| DecodeError::Invalid("a stop rule is out of its limits"))?;
        Ok(rules)
    }
}

/// A whole generation as its submitter asks for it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GenerationRequest {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Where the answer ends.
    pub stop: StopRules,
}

impl GenerationRequest {
    /// Appends prompt, sampling and stop rules.
    pub fn encode(&self, encoder: &mut Encoder) {
        encoder.list(&self.prompt, |encoder, &token| {
            encoder.u32(token);
        });
        self.sampling.encode(encoder);
        self.stop.encode(encoder);
    }

    /// Reads what [`encode`](Self::encode) wrote. Whether it fits a model is
    /// [`ValidatedModel::check_request`](crate::ValidatedModel::check_request)'s question.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            prompt: decoder.list(MAX_JOB_TOKENS, Decoder::u32)?,
            sampling: Sampling::decode(decoder)?,
            stop: StopRules::decode(decoder)?,
        })
    }
}
