//! How answers are drawn where a request does not say, by the word of whoever published the model.

use gainsay_commitment::encoding::{DecodeError, Decoder, Encoder};

use crate::sampling::{RequestError, Sampling};

/// What a model's publisher says of how tokens are drawn; nothing where it says nothing. It binds no party: a job states all
/// of its parameters itself. Whoever writes a job for somebody who left them out takes them from here.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SamplingDefaults {
    /// [`Sampling::temperature`].
    pub temperature: Option<f32>,
    /// [`Sampling::top_k`].
    pub top_k: Option<u32>,
    /// [`Sampling::top_p`].
    pub top_p: Option<f32>,
    /// [`Sampling::min_p`].
    pub min_p: Option<f32>,
    /// [`Sampling::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
}

impl SamplingDefaults {
    /// These parameters, with those in their places that the publisher says.
    #[must_use]
    pub fn over(&self, sampling: Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(sampling.temperature),
            top_k: self.top_k.unwrap_or(sampling.top_k),
            top_p: self.top_p.unwrap_or(sampling.top_p),
            min_p: self.min_p.unwrap_or(sampling.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(sampling.repetition_penalty),
            ..sampling
        }
    }

    /// Refuses what no job could state.
    pub(crate) fn check(&self) -> Result<(), RequestError> {
        self.over(Sampling::default()).check()
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        for float in [self.temperature, self.top_p, self.min_p, self.repetition_penalty] {
            encoder.option(float.as_ref(), |encoder, &float| {
                encoder.f32_bits(float);
            });
        }
        encoder.option(self.top_k.as_ref(), |encoder, &top_k| {
            encoder.u32(top_k);
        });
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            temperature: decoder.option(Decoder::f32_bits)?,
            top_p: decoder.option(Decoder::f32_bits)?,
            min_p: decoder.option(Decoder::f32_bits)?,
            repetition_penalty: decoder.option(Decoder::f32_bits)?,
            top_k: decoder.option(Decoder::u32)?,
        })
    }
}
