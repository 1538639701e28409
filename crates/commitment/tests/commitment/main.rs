//! What a verifier may rely on, file by file.

mod encoding;
mod golden;
mod sample;
mod signature;
mod subtrees;
mod tensor;
mod trace;
