//! The database and the model files. The only code that knows SQL.



/// The database failed or answered with what cannot be.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The driver or the server refused.
    #[error("{operation} failed")]
    Database {
        /// What was attempted.
        operation: &'static str,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// A row holds what this build cannot read.
    #[error("a row of {table} does not decode: {what}")]
    Corrupt {
        /// Where.
        table: &'static str,
        /// What was wrong.
        what: String,
    },
}
