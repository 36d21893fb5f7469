//! An answer as a client reads it off the wire, with every digit as it was sent.

use riomar_schemas::Receipt;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The body of a JSON answer.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// The columns, in order.
    pub columns: Vec<AnswerColumn>,
    /// The rows; each value as its JSON text.
    pub rows: Vec<Vec<Box<RawValue>>>,
    /// What the answer contains.
    pub receipt: Receipt,
}

/// One column of an answer.
#[derive(Debug, Deserialize)]
pub struct AnswerColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub column_type: String,
}

impl Answer {
    /// Where a column stands.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The values of one column, without the quotes of texts.
    ///
    /// # Panics
    /// When there is no such column.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<Option<String>> {
        let column = self.column(name).unwrap_or_else(|| panic!("no column {name} in {:?}", self.columns));
        self.rows.iter().map(|row| plain(&row[column])).collect()
    }

    /// For each partition the next offset that is not in the answer; 0 where the receipt has none.
    ///
    /// # Panics
    /// When the receipt has no such view.
    #[must_use]
    pub fn through(&self, view: &str, partitions: usize) -> Vec<u64> {
        let receipt = self.receipt.views.iter().find(|(name, _)| name.as_str() == view);
        let (_, receipt) = receipt.unwrap_or_else(|| panic!("no {view} in the receipt {:?}", self.receipt));
        let mut through = vec![0; partitions];
        for (partition, offset) in &receipt.through {
            through[partition.0 as usize] = offset.0;
        }
        through
    }
}

/// A JSON value as plain text: `None` for null, texts without their quotes, everything else as it stands.
#[must_use]
pub fn plain(raw: &RawValue) -> Option<String> {
    match raw.get() {
        "null" => None,
        text if text.starts_with('"') => Some(serde_json::from_str(text).expect("valid JSON text")),
        other => Some(other.to_owned()),
    }
}
