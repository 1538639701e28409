//! 200 texts of all lengths.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use gainsay_program::{JobInput, ValidatedModel};
use tokenizers::Tokenizer;

use crate::support::Random;

/// A sentence a line, an empty line between subjects.
const SENTENCES: &str = include_str!("sentences.txt");
const TEXTS: usize = 200;

/// Each text as a job of its own: every sentence alone, then passages of more and more sentences of one subject, with a
/// few of others strewn in, up to what the model takes.
pub(crate) fn jobs(folder: &Path, model: &ValidatedModel) -> Result<Vec<JobInput>> {
    let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json"));
    let mut tokenizer = tokenizer.map_err(|error| anyhow!("tokenizer.json: {error}"))?;
    let longest = model.manifest().max_sequence as usize;
    tokenizer.with_truncation(None).map_err(|error| anyhow!("tokenizer.json: {error}"))?;
    tokenizer.with_padding(None);
    let encode = |text: &String| -> Result<JobInput> {
        let encoding = tokenizer.encode_fast(text.as_str(), true).map_err(|error| anyhow!("{error}"))?;
        let ids = encoding.get_ids();
        // Cut before the last token, which ends every sequence.
        let end = ids.last().copied();
        let cut = ids[..ids.len().min(longest) - 1].iter().copied().chain(end);
        Ok(JobInput::new([cut.collect::<Vec<_>>()])?)
    };
    let jobs = texts().iter().map(encode).collect::<Result<Vec<_>>>()?;
    let lengths = || jobs.iter().map(JobInput::token_count);
    ensure!(jobs.len() == TEXTS && lengths().max() == Some(longest as u64), "short and long texts");
    let mean = lengths().sum::<u64>() as f64 / TEXTS as f64;
    println!("{TEXTS} texts of {:?} to {longest} tokens, {mean:.0} on average", lengths().min().unwrap_or(0));
    Ok(jobs)
}

fn texts() -> Vec<String> {
    let subjects: Vec<Vec<&str>> =
        SENTENCES.split("\n\n").map(|subject| subject.lines().collect::<Vec<_>>()).collect();
    let all: Vec<&str> = subjects.iter().flatten().copied().collect();
    let mut texts: Vec<String> = all.iter().map(|&sentence| sentence.to_owned()).collect();
    let mut random = Random(1);
    let mut pick = |from: &[&'static str]| from[(random.next_u64() % from.len() as u64) as usize];
    for passage in 0..TEXTS - texts.len() {
        let subject = &subjects[passage % subjects.len()];
        let sentences = 2 + passage / 2;
        let text: Vec<&str> =
            (0..sentences).map(|i| if i % 4 == 3 { pick(&all) } else { pick(subject) }).collect();
        texts.push(text.join(" "));
    }
    texts
}
