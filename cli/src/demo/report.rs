//! What the demo found out: one JSON object for programs, a few tables for people.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// The result of a demo, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) ok: bool,
    pub(crate) checks: Vec<Check>,
    pub(crate) model: Model,
    pub(crate) jobs: Jobs,
    pub(crate) disputes: Vec<Dispute>,
    pub(crate) accounts: Vec<Account>,
    /// Sum over all accounts, micro-credits; anything but zero is a broken ledger.
    pub(crate) ledger_sum: i64,
    pub(crate) seconds: f64,
}

/// One thing that must be true for the demo to have succeeded.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) ok: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Model {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) arithmetic: String,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Jobs {
    pub(crate) submitted: usize,
    pub(crate) finalized: usize,
    pub(crate) refunded: usize,
    pub(crate) reassigned: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Dispute {
    pub(crate) claim: String,
    pub(crate) layer: u32,
    /// Kind of the operator in which the element lies, once one was chosen.
    pub(crate) op: Option<String>,
    pub(crate) element: Option<u64>,
    pub(crate) moves: usize,
    pub(crate) witness_bytes: Option<u64>,
    pub(crate) referee_us: Option<u64>,
    /// From the moment the claim was heard of to the verdict.
    pub(crate) after_claim_ms: Option<u64>,
    pub(crate) verdict: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) role: String,
    /// Micro-credits.
    pub(crate) balance: i64,
}

impl Report {
    /// The tables that end a demo for people.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        text.push_str(&format!("\nAccounts, in credits\n{}\n", self.accounts_table()));
        if !self.disputes.is_empty() {
            text.push_str(&format!("\nDisputes\n{}\n", self.disputes_table()));
        }
        text.push_str("\nWhat had to be true\n");
        for check in &self.checks {
            text.push_str(&format!("  {} {}\n", if check.ok { "✓" } else { "✗" }, check.name));
        }
        text
    }

    fn accounts_table(&self) -> Table {
        let mut table = table(&["account", "role", "balance"]);
        for account in &self.accounts {
            table.add_row([account.name.clone(), account.role.clone(), credits(account.balance)]);
        }
        table.add_row(["sum".to_owned(), String::new(), credits(self.ledger_sum)]);
        align_right(&mut table, &[2]);
        table
    }

    fn disputes_table(&self) -> Table {
        let mut table = table(&[
            "claim",
            "layer",
            "operator",
            "element",
            "moves",
            "witness",
            "referee",
            "after claim",
            "verdict",
        ]);
        for dispute in &self.disputes {
            let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
            table.add_row([
                dispute.claim.chars().take(12).collect(),
                dispute.layer.to_string(),
                or_dash(dispute.op.clone()),
                or_dash(dispute.element.map(|element| element.to_string())),
                dispute.moves.to_string(),
                or_dash(dispute.witness_bytes.map(|bytes| format!("{:.1} KiB", bytes as f64 / 1024.0))),
                or_dash(dispute.referee_us.map(|micros| format!("{micros} µs"))),
                or_dash(dispute.after_claim_ms.map(|ms| format!("{:.2} s", ms as f64 / 1000.0))),
                dispute.verdict.clone(),
            ]);
        }
        align_right(&mut table, &[1, 3, 4, 5, 6, 7]);
        table
    }
}

/// Micro-credits as credits, with sign.
pub(crate) fn credits(micro: i64) -> String {
    let sign = if micro < 0 { "−" } else { "" };
    let magnitude = micro.unsigned_abs();
    format!("{sign}{}.{:06}", magnitude / 1_000_000, magnitude % 1_000_000)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(header.to_vec());
    table
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for index in columns {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::credits;

    #[test]
    fn credits_keep_every_micro_credit_and_the_sign() {
        assert_eq!(credits(0), "0.000000");
        assert_eq!(credits(1_000_001), "1.000001");
        assert_eq!(credits(-1), "−0.000001");
        assert_eq!(credits(i64::MIN), "−9223372036854.775808");
    }
}
