//! Entries and states as arguments and replies of the scripts.

use std::collections::BTreeMap;

use redis::{Script, ScriptInvocation, Value};
use riomar_schemas::{Epoch, Offset, PartitionId, ReaderPosition, View, keys, state_codec::EncodedState};

use super::connection::Connection;
use crate::store::{Entry, StoreError, WriteOutcome};

/// The version of the entry's fields, and of what the scripts make of them.
const FORMAT: &str = "1";

/// One call of a script.
pub(super) struct Call<'a> {
    script: ScriptInvocation<'a>,
    entry_key: String,
}

impl<'a> Call<'a> {
    pub(super) fn new(script: &'a Script, deployment: &str, view: &View, partition: PartitionId) -> Self {
        let entry_key = keys::entry(deployment, view, partition);
        let mut script = script.prepare_invoke();
        script.key(&entry_key).arg(keys::epochs(deployment, view, partition)).arg(FORMAT);
        Self { script, entry_key }
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.script.arg(number);
        self
    }

    pub(super) fn guard(&mut self, expected: Option<&Entry>) -> &mut Self {
        match expected {
            Some(entry) => self.number(entry.position.offset.0).number(entry.position.epoch.0).number(entry.start.0),
            None => {
                self.script.arg("").arg("").arg("");
                self
            }
        }
    }

    pub(super) fn entry(&mut self, entry: &Entry) -> &mut Self {
        self.guard(Some(entry)).number(entry.floor.0);
        self.script.arg(entry.event_time_max_us.map(|time| time.to_string()).unwrap_or_default());
        self.script.arg(entry.halted.as_ref().map(|reason| format!("={reason}")).unwrap_or_default());
        self
    }

    pub(super) fn states(&mut self, states: &[EncodedState]) -> &mut Self {
        let mut epochs: BTreeMap<Epoch, Vec<&EncodedState>> = BTreeMap::new();
        for state in states {
            epochs.entry(state.epoch).or_default().push(state);
        }
        for (epoch, states) in epochs {
            self.number(epoch.0).number(states.len() as u64);
            for state in states {
                self.script.arg(&state.key).arg(state.state.as_slice());
            }
        }
        self
    }

    /// Asks for these keys; the states come in the order of the returned indices.
    pub(super) fn keys(&mut self, keys: &[(Epoch, &str)]) -> Vec<usize> {
        let mut epochs: BTreeMap<Epoch, Vec<usize>> = BTreeMap::new();
        for (place, (epoch, _)) in keys.iter().enumerate() {
            epochs.entry(*epoch).or_default().push(place);
        }
        for (epoch, places) in &epochs {
            self.number(epoch.0).number(places.len() as u64);
            for place in places {
                self.script.arg(keys[*place].1);
            }
        }
        epochs.into_values().flatten().collect()
    }

    pub(super) async fn run(&self, connection: &Connection) -> Result<Reply, StoreError> {
        let Value::Array(parts) = connection.run(&self.script).await? else {
            return Err(self.damaged("the reply", "no list"));
        };
        Ok(Reply { parts: parts.into_iter(), entry_key: self.entry_key.clone() })
    }

    pub(super) fn damaged(&self, field: &str, reason: &str) -> StoreError {
        damaged(&self.entry_key, field, reason)
    }
}

/// The reply of a script, taken apart from front to back.
pub(super) struct Reply {
    parts: std::vec::IntoIter<Value>,
    entry_key: String,
}

impl Reply {
    /// Whether the store has no entry. Takes the first part, which names the kind of the reply.
    pub(super) fn is_none(&mut self) -> Result<bool, StoreError> {
        Ok(self.text()? == "none")
    }

    /// The outcome of a guarded write.
    pub(super) fn outcome(&mut self) -> Result<WriteOutcome, StoreError> {
        match self.text()?.as_str() {
            "applied" => Ok(WriteOutcome::Applied),
            "none" => Ok(WriteOutcome::Fenced(None)),
            _ => Ok(WriteOutcome::Fenced(Some(self.entry()?.0))),
        }
    }

    /// The entry, and the number of groups in each of its epochs.
    pub(super) fn entry(&mut self) -> Result<(Entry, BTreeMap<Epoch, u64>), StoreError> {
        let fields = pairs(self.list()?)?
            .map(|pair| pair.and_then(|(field, value)| Ok((field, utf8(value)?))))
            .collect::<Result<BTreeMap<String, String>, _>>()?;
        Fields { fields, entry_key: &self.entry_key }.read()
    }

    /// The next part, which is a list.
    pub(super) fn list(&mut self) -> Result<Vec<Value>, StoreError> {
        list(self.parts.next().unwrap_or(Value::Nil))
    }

    /// The next part, which lists epochs with their states.
    pub(super) fn epochs(&mut self) -> Result<Vec<EncodedState>, StoreError> {
        let mut states = Vec::new();
        for pair in epoch_pairs(self.list()?) {
            let (epoch, values) = pair?;
            let values = list(values)?;
            states.reserve(values.len() / 2);
            for pair in pairs(values)? {
                let (key, state) = pair?;
                states.push(EncodedState { epoch, key, state });
            }
        }
        Ok(states)
    }

    fn text(&mut self) -> Result<String, StoreError> {
        utf8(bytes(self.parts.next().unwrap_or(Value::Nil))?)
    }
}

/// The fields of an entry's hash.
struct Fields<'a> {
    fields: BTreeMap<String, String>,
    entry_key: &'a str,
}

impl Fields<'_> {
    fn read(&self) -> Result<(Entry, BTreeMap<Epoch, u64>), StoreError> {
        if self.fields.get("format").map(String::as_str) != Some(FORMAT) {
            let reason = format!("this version reads format {FORMAT}; delete the key to have it rebuilt");
            return Err(damaged(self.entry_key, "format", &reason));
        }
        let entry = Entry {
            position: ReaderPosition { offset: Offset(self.number("offset")?), epoch: Epoch(self.number("epoch")?) },
            start: Epoch(self.number("start")?),
            floor: Epoch(self.number("floor")?),
            event_time_max_us: match self.fields.get("event_time_max_us") {
                Some(_) => Some(self.number("event_time_max_us")?),
                None => None,
            },
            halted: self.fields.get("halted").cloned(),
        };
        let mut groups = BTreeMap::new();
        for field in self.fields.keys() {
            if let Some(epoch) = field.strip_prefix("groups:") {
                let epoch = epoch.parse().map_err(|_| damaged(self.entry_key, field, "no epoch"))?;
                groups.insert(Epoch(epoch), self.number(field)?);
            }
        }
        Ok((entry, groups))
    }

    fn number<T: std::str::FromStr>(&self, field: &str) -> Result<T, StoreError> {
        let text = self.fields.get(field).ok_or_else(|| damaged(self.entry_key, field, "missing"))?;
        text.parse().map_err(|_| damaged(self.entry_key, field, "no number"))
    }
}

fn damaged(entry_key: &str, field: &str, reason: &str) -> StoreError {
    StoreError::Damaged(format!("{entry_key}, {field}: {reason}"))
}

fn unexpected(what: &str) -> StoreError {
    StoreError::Damaged(format!("a reply of Redis has {what} where none can be"))
}

fn list(value: Value) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(unexpected("no list")),
    }
}

fn bytes(value: Value) -> Result<Vec<u8>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        _ => Err(unexpected("no text")),
    }
}

fn utf8(bytes: Vec<u8>) -> Result<String, StoreError> {
    String::from_utf8(bytes).map_err(|_| unexpected("bytes that are not UTF-8"))
}

/// A state, or nil.
pub(super) fn optional_bytes(value: Value) -> Result<Option<Vec<u8>>, StoreError> {
    if value == Value::Nil { Ok(None) } else { bytes(value).map(Some) }
}

/// The fields and values of a hash, which Redis lists one after the other.
fn pairs(values: Vec<Value>) -> Result<impl Iterator<Item = Result<(String, Vec<u8>), StoreError>>, StoreError> {
    if !values.len().is_multiple_of(2) {
        return Err(unexpected("a field without its value"));
    }
    let mut values = values.into_iter();
    Ok(std::iter::from_fn(move || {
        let (field, value) = (values.next()?, values.next()?);
        Some(bytes(field).and_then(utf8).and_then(|field| Ok((field, bytes(value)?))))
    }))
}

/// Epochs and what follows each.
fn epoch_pairs(values: Vec<Value>) -> impl Iterator<Item = Result<(Epoch, Value), StoreError>> {
    let mut values = values.into_iter();
    std::iter::from_fn(move || {
        let (epoch, value) = (values.next()?, values.next()?);
        let epoch = bytes(epoch).and_then(utf8).and_then(|text| text.parse().map_err(|_| unexpected("no epoch")));
        Some(epoch.map(|epoch| (Epoch(epoch), value)))
    })
}
