//! What the law computes with each family's small model, against what `transformers` computed: the program is the right one.

use std::path::Path;

use gainsay_program::lowering::{LowerOptions, lower_language};
use gainsay_program::{ArithmeticProfile, JobInput, KvDtype, Sampling, reference};
use safetensors::SafeTensors;
use serde::Deserialize;

use crate::language::{FAMILIES, files, folder};

/// Greatest difference of a logit, relative to the range of all logits of its row.
const TOLERANCE: f32 = 1e-4;
/// Which op of the last layer gives logits.
const HEAD: u32 = 2;

#[derive(Deserialize)]
struct Reference {
    prompts: Vec<Continued>,
}

#[derive(Deserialize)]
struct Continued {
    prompt: Vec<u32>,
    continuation: Vec<u32>,
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn logits_and_greedy_tokens_are_those_of_transformers() {
    for family in FAMILIES {
        let options = LowerOptions {
            kv_dtype: Some(KvDtype::F32),
            ..LowerOptions::new("small", ArithmeticProfile::ExactF32V1)
        };
        let lowered = lower_language(&files(family), &options).expect("the family lowers");
        let model = lowered.manifest.validate().expect("lowering validates");
        let about: Reference =
            serde_json::from_slice(&read(&folder(family).join("reference.json"))).expect("the answers parse");
        let bytes = read(&folder(family).join("reference.safetensors"));
        let tensors = SafeTensors::deserialize(&bytes).expect("the logits parse");

        let Continued { prompt, continuation } = &about.prompts[0];
        let job = JobInput::generation(prompt, continuation, Sampling::default()).expect("it is a job");
        let trace = reference::run(&model, &lowered.weights, &job).expect("the model runs");
        let vocabulary = model.manifest().vocabulary as usize;
        let head = floats(trace.op(model.layer_count() - 1, HEAD).expect("the last layer has a head"));
        // The reference's last row is of the token after the continuation, which no answer of this length needs.
        let expected = floats(tensors.tensor("logits.0").expect("the logits are there").data());
        let kept = expected.len() / vocabulary - 1;
        let ours = &head[head.len() - kept * vocabulary..];
        for (ours, theirs) in ours.chunks(vocabulary).zip(expected.chunks(vocabulary)) {
            let (low, high) =
                theirs.iter().fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
            let apart = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart <= TOLERANCE * (high - low), "{family}: {apart} of {}", high - low);
        }
        let tokens: Vec<u32> =
            trace.answer().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        assert_eq!(&tokens, continuation, "{family}: the greedy tokens");
    }
}
