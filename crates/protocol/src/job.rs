//! The canonical job: everything an answer may depend on.

use gainsay_commitment::{Canonical, DecodeError, Decoder, Encoder, InputCommitment, ModelId};
use gainsay_program::{JobInput, MAX_JOB_TOKENS};

/// What the submitter wants computed, with every parameter that the answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Task {
    /// One vector per sequence. Has no parameters.
    Embedding,
}

/// A job as its input commitment binds it: model, task and token ids.
///
/// The referee reads token ids from the recorded job, never from a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    /// The model that is to answer.
    pub model: ModelId,
    /// What is to be computed.
    pub task: Task,
    /// The job's sequences of token ids.
    pub input: JobInput,
}

impl Job {
    /// A job that asks for one vector per sequence.
    #[must_use]
    pub fn embedding(model: ModelId, input: JobInput) -> Self {
        Self { model, task: Task::Embedding, input }
    }

    /// The hash that a claim repeats: changing anything about the job changes it.
    #[must_use]
    pub fn commitment(&self) -> InputCommitment {
        InputCommitment::from_bytes(self.digest())
    }
}

impl Canonical for Job {
    const CONTEXT: &'static str = "gainsay v1 job";

    fn encode_fields(&self, e: &mut Encoder) {
        e.hash(&self.model);
        match self.task {
            Task::Embedding => e.u8(1),
        };
        let number = |e: &mut Encoder, value: &u32| {
            e.u32(*value);
        };
        e.list(self.input.token_ids(), number).list(self.input.offsets(), number);
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let model = d.hash()?;
        let task = match d.u8()? {
            1 => Task::Embedding,
            tag => return Err(DecodeError::UnknownTag { what: "task", tag }),
        };
        let token_ids = d.list(MAX_JOB_TOKENS, Decoder::u32)?;
        let offsets = d.list(MAX_JOB_TOKENS + 1, Decoder::u32)?;
        let input = JobInput::from_parts(token_ids, offsets)
            .map_err(|_| DecodeError::Invalid("the offsets do not cut the token ids into sequences"))?;
        Ok(Self { model, task, input })
    }
}
