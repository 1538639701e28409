//! Commands of the operator: deposits, audits, disputes whose referee failed.

use anyhow::{Context as _, Result};
use clap::Args;
use gainsay_api::accounts::Deposit;
use gainsay_api::voids::VoidProfile;
use gainsay_commitment::DisputeId;
use gainsay_protocol::OwnerId;

use crate::submit::{Coordinator, print_json};

/// A coordinator and the right to operate it.
#[derive(Debug, Args)]
pub(crate) struct Operator {
    #[command(flatten)]
    coordinator: Coordinator,
    /// The operator's token.
    #[arg(long, env = "GAINSAY_OPERATOR_TOKEN", hide_env_values = true)]
    operator_token: String,
}

#[derive(Debug, Args)]
pub(crate) struct DepositArguments {
    #[command(flatten)]
    operator: Operator,
    /// Whose balance grows: the id that registration answered.
    to: OwnerId,
    /// In micro-credits.
    amount: i64,
}

impl DepositArguments {
    /// Credits an account, and prints it.
    pub(crate) async fn run(self) -> Result<()> {
        let Operator { coordinator, operator_token } = self.operator;
        let deposit = Deposit { to: self.to, amount: self.amount };
        print_json(&coordinator.connect().await?.deposit(&operator_token, &deposit).await?)
    }
}

#[derive(Debug, Args)]
pub(crate) struct AuditArguments {
    #[command(flatten)]
    operator: Operator,
}

impl AuditArguments {
    /// Audits the books, and lists what does not hold; whether all does.
    pub(crate) async fn run(self) -> Result<bool> {
        let Operator { coordinator, operator_token } = self.operator;
        let report = coordinator.connect().await?.audit(&operator_token).await.context("no audit")?;
        for finding in &report.findings {
            println!("{finding}");
        }
        println!(
            "{} transactions and {} accounts as of {} ms of service time: {}",
            report.transactions,
            report.accounts,
            report.at_ms,
            if report.findings.is_empty() { "the books are in order" } else { "the books are NOT in order" },
        );
        Ok(report.findings.is_empty())
    }
}

#[derive(Debug, Args)]
pub(crate) struct VoidArguments {
    #[command(flatten)]
    operator: Operator,
    /// Name and version of the profile, as `gainsay models list` shows it.
    arithmetic: String,
    /// Why: everybody will read it.
    #[arg(long)]
    reason: String,
}

impl VoidArguments {
    /// Withdraws a profile, and prints the signed statement.
    pub(crate) async fn run(self) -> Result<()> {
        let Operator { coordinator, operator_token } = self.operator;
        let void = VoidProfile { arithmetic: self.arithmetic, reason: self.reason };
        print_json(&coordinator.connect().await?.void(&operator_token, &void).await?)
    }
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArguments {
    #[command(flatten)]
    operator: Operator,
    /// Id of the dispute.
    dispute: DisputeId,
}

impl ResumeArguments {
    /// Lets the clocks of a paused dispute run again, and prints it.
    pub(crate) async fn run(self) -> Result<()> {
        let Operator { coordinator, operator_token } = self.operator;
        print_json(&coordinator.connect().await?.resume_dispute(&operator_token, self.dispute).await?)
    }
}
