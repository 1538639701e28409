//! The canonical job: everything an answer may depend on.

use gainsay_commitment::{Canonical, DecodeError, Decoder, Encoder, InputCommitment, ModelId};
use gainsay_program::{GenerationRequest, JobError, JobInput, MAX_JOB_TOKENS, ValidatedModel};

/// What the submitter wants computed, with every parameter that the answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Task {
    /// One vector for each of these sequences. Has no parameters.
    Embedding(JobInput),
    /// A prompt's continuation.
    Generation(GenerationRequest),
}

/// A job as its input commitment binds it: model, task and token ids.
///
/// The referee reads token ids from the recorded job and claim, never from a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    /// The model that is to answer.
    pub model: ModelId,
    /// What is to be computed.
    pub task: Task,
}

/// Why bytes are no answer to a job, whatever the model says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// Not one token id or more.
    #[error("the answer of {bytes} bytes is not one token id or more")]
    Form {
        /// Its length.
        bytes: usize,
    },
    /// More tokens than were asked for.
    #[error("the answer holds {tokens} tokens; {max_tokens} were asked for")]
    TooLong {
        /// Its tokens.
        tokens: usize,
        /// The job's limit.
        max_tokens: u32,
    },
    /// A token that the model does not have.
    #[error("token {index} of the answer has id {id}; the model's vocabulary holds {vocabulary}")]
    UnknownToken {
        /// Its index in the answer.
        index: usize,
        /// Its id.
        id: u32,
        /// The model's limit.
        vocabulary: u32,
    },
    /// The recorded job is not one that could have been submitted.
    #[error("the job's prompt and parameters cannot be run")]
    Request,
}

impl Job {
    /// A job that asks for one vector per sequence.
    #[must_use]
    pub fn embedding(model: ModelId, input: JobInput) -> Self {
        Self { model, task: Task::Embedding(input) }
    }

    /// A job that asks for a prompt's continuation.
    #[must_use]
    pub fn generation(model: ModelId, request: GenerationRequest) -> Self {
        Self { model, task: Task::Generation(request) }
    }

    /// The sequences to be encoded, where the job asks for that.
    #[must_use]
    pub fn embedding_input(&self) -> Option<&JobInput> {
        match &self.task {
            Task::Embedding(input) => Some(input),
            Task::Generation(_) => None,
        }
    }

    /// The generation asked for, where the job asks for one.
    #[must_use]
    pub fn generation_request(&self) -> Option<&GenerationRequest> {
        match &self.task {
            Task::Embedding(_) => None,
            Task::Generation(request) => Some(request),
        }
    }

    /// Number of sequences: one for a generation.
    #[must_use]
    pub fn sequence_count(&self) -> u64 {
        self.embedding_input().map_or(1, JobInput::sequence_count)
    }

    /// Tokens that an answer may hold at most; 0 for embeddings.
    pub fn most_drawn(&self) -> u32 {
        self.generation_request().map_or(0, |request| request.stop.max_tokens)
    }

    /// Tokens that the job is priced by at most: those given, and for a generation those that may be drawn.
    #[must_use]
    pub fn token_count(&self) -> u64 {
        match &self.task {
            Task::Embedding(input) => input.token_count(),
            Task::Generation(request) => request.prompt.len() as u64 + u64::from(request.stop.max_tokens),
        }
    }

    /// Refuses a job that the model does not take.
    ///
    /// # Errors
    /// See [`ValidatedModel::check_job`] and [`ValidatedModel::check_request`].
    pub fn check(&self, model: &ValidatedModel) -> Result<(), JobError> {
        match &self.task {
            Task::Embedding(input) => model.check_job(input),
            Task::Generation(request) => model.check_request(request),
        }
    }

    /// The token ids of an answer to a generation; nothing for an embedding.
    ///
    /// # Errors
    /// The bytes are no token ids, or more than were asked for.
    pub fn answer_tokens(&self, output: &[u8]) -> Result<Option<Vec<u32>>, AnswerFault> {
        let Task::Generation(request) = &self.task else { return Ok(None) };
        let (tokens, rest) = output.as_chunks();
        if tokens.is_empty() || !rest.is_empty() {
            return Err(AnswerFault::Form { bytes: output.len() });
        }
        let max_tokens = request.stop.max_tokens;
        if tokens.len() as u64 > max_tokens.into() {
            return Err(AnswerFault::TooLong { tokens: tokens.len(), max_tokens });
        }
        Ok(Some(tokens.iter().map(|&token| u32::from_le_bytes(token)).collect()))
    }

    /// What the program runs on, given the answer that was claimed: the sequences of an embedding, whatever the answer;
    /// the prompt and the claimed tokens of a generation.
    ///
    /// # Errors
    /// The answer is not one to this job.
    pub fn input_given(&self, output: &[u8]) -> Result<JobInput, AnswerFault> {
        match (&self.task, self.answer_tokens(output)?) {
            (Task::Generation(request), Some(answer)) => {
                JobInput::generation(&request.prompt, &answer, request.sampling.clone())
                    .map_err(|_| AnswerFault::Request)
            }
            (Task::Embedding(input), _) => Ok(input.clone()),
            (Task::Generation(_), None) => Err(AnswerFault::Form { bytes: output.len() }),
        }
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
        match &self.task {
            Task::Embedding(input) => {
                let number = |e: &mut Encoder, value: &u32| {
                    e.u32(*value);
                };
                e.u8(1).list(input.token_ids(), number).list(input.offsets(), number);
            }
            Task::Generation(request) => request.encode(e.u8(2)),
        }
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let model = d.hash()?;
        let task = match d.u8()? {
            1 => {
                let token_ids = d.list(MAX_JOB_TOKENS, Decoder::u32)?;
                let offsets = d.list(MAX_JOB_TOKENS + 1, Decoder::u32)?;
                let input = JobInput::from_parts(token_ids, offsets).map_err(|_| {
                    DecodeError::Invalid("the offsets do not cut the token ids into sequences")
                })?;
                Task::Embedding(input)
            }
            2 => Task::Generation(GenerationRequest::decode(d)?),
            tag => return Err(DecodeError::UnknownTag { what: "task", tag }),
        };
        Ok(Self { model, task })
    }
}
