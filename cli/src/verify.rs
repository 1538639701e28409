//! `gainsay verify`: judges an exported dispute again, without trusting the coordinator that exported it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use gainsay_commitment::Canonical as _;
use gainsay_protocol::{Cause, Closing, EvidenceBundle, Verdict};

/// Re-judges an evidence bundle offline: signatures, hash chain, clocks, and the recomputed element.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// A file as `GET /v1/disputes/{id}/evidence` gives it.
    file: PathBuf,
}

impl VerifyArguments {
    pub(crate) fn run(&self) -> Result<()> {
        let bytes =
            std::fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        println!("{}", check(&bytes)?);
        Ok(())
    }
}

/// Judges a bundle again and says in words what it shows.
///
/// # Errors
/// If the bundle does not decode, or what it reports does not follow from what it holds.
pub(crate) fn check(bytes: &[u8]) -> Result<String> {
    let bundle = EvidenceBundle::from_bytes(bytes).context("this is not an evidence bundle")?;
    let judged = bundle.rejudge().context("the bundle does not show what it reports")?;
    let claim = &bundle.claim.body;
    let verdict = match judged.outcome.verdict {
        Verdict::ChallengerWins => "the claim is wrong, or was not defended",
        Verdict::WorkerWins => "the challenge failed",
        Verdict::Moot => "another dispute decided the claim first",
        Verdict::Void => "the operator withdrew the arithmetic profile",
    };
    let cause = match judged.outcome.cause {
        Cause::Proof { place, element, claimed, recomputed } => format!(
            "layer {}, operator {}, element {element}: claimed {}, recomputed {}",
            place.layer,
            place.op,
            hex::encode(claimed),
            hex::encode(recomputed)
        ),
        Cause::Timeout(role) => format!("the {role} spent its allowance"),
        Cause::Closed(Closing::ClaimRejected { .. }) => "the claim was rejected elsewhere".to_owned(),
        Cause::Closed(Closing::BondLost { by }) => format!("the challenger lost its bond in dispute {by}"),
        Cause::Closed(Closing::Void) => "the profile version was declared void".to_owned(),
    };
    Ok(format!(
        "dispute      {}\nclaim        {} by worker {}\nmodel        {}\nrecords      {}, each signed by coordinator {}\n\
         verdict      {verdict}\nbecause      {cause}\nEvery signature, time and hash was checked, and the verdict follows.",
        judged.dispute.id(),
        bundle.claim.body.id(),
        claim.worker,
        claim.model,
        bundle.log.len(),
        judged.coordinator,
    ))
}
