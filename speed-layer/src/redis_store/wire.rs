//! Entries and states as arguments and replies of the scripts.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;
use riomar_schemas::{Epoch, Offset, PartitionId, ReaderPosition, View, keys, state_codec::EncodedState};

use super::{
    connection::Connection,
    epochs::ListedEpochs,
    script::{Arguments, Script},
};
use crate::store::{Entry, StoreError, WriteOutcome};

/// The version of the entry's fields, and of what the scripts make of them.
const FORMAT: &str = "1";
/// How often a call is made again because the entry lists other epochs than it named.
const NAMINGS_MAX: usize = 8;

/// One call of a script.
pub(super) struct Call<'a> {
    script: &'a Script,
    listed: &'a ListedEpochs,
    entry_key: String,
    epochs_key: String,
    /// Epochs that the script touches whether the entry lists them or not.
    written: BTreeSet<Epoch>,
    /// The epochs below are gone once the call has had its effect.
    floor: Epoch,
    values: Vec<Vec<u8>>,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        script: &'a Script,
        listed: &'a ListedEpochs,
        deployment: &str,
        view: &View,
        partition: PartitionId,
    ) -> Self {
        let (entry_key, epochs_key) = (keys::entry(deployment, view, partition), keys::epochs(deployment, view, partition));
        let values = vec![epochs_key.clone().into_bytes(), FORMAT.into()];
        Self { script, listed, entry_key, epochs_key, written: BTreeSet::new(), floor: Epoch::default(), values }
    }

    /// The lowest epoch wanted.
    pub(super) fn from(&mut self, from: Epoch) -> &mut Self {
        self.number(from.0)
    }

    /// The lowest epoch that is kept.
    pub(super) fn floor(&mut self, floor: Epoch) -> &mut Self {
        self.floor = floor;
        self.number(floor.0)
    }

    pub(super) fn guard(&mut self, expected: Option<&Entry>) -> &mut Self {
        match expected {
            Some(entry) => self.number(entry.position.offset.0).number(entry.position.epoch.0).number(entry.start.0),
            None => self.text("").text("").text(""),
        }
    }

    pub(super) fn entry(&mut self, entry: &Entry) -> &mut Self {
        self.guard(Some(entry)).floor(entry.floor);
        self.text(&entry.event_time_max_us.map(|time| time.to_string()).unwrap_or_default());
        self.text(&entry.rebuilding_to.map(|end| end.to_string()).unwrap_or_default());
        self.text(&entry.halted.as_ref().map(|reason| format!("={reason}")).unwrap_or_default()).number(entry.lost)
    }

    pub(super) fn states(&mut self, states: &[EncodedState]) -> &mut Self {
        let mut epochs: BTreeMap<Epoch, Vec<&EncodedState>> = BTreeMap::new();
        for state in states {
            epochs.entry(state.epoch).or_default().push(state);
        }
        for (epoch, states) in epochs {
            self.written.insert(epoch);
            self.number(epoch.0).number(states.len() as u64);
            for state in states {
                self.text(&state.key).values.push(state.state.clone());
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
                self.text(keys[*place].1);
            }
        }
        epochs.into_values().flatten().collect()
    }

    /// Runs the script, again where it says that the entry lists epochs whose keys were not named.
    pub(super) async fn run(&self, connection: &Connection) -> Result<Reply, StoreError> {
        let deadline = connection.deadline();
        for _ in 0..NAMINGS_MAX {
            let mut named = self.listed.of(&self.entry_key);
            named.extend(&self.written);
            let epoch_keys = named.iter().map(|epoch| format!("{}{epoch}", self.epochs_key));
            let keys: Vec<_> = std::iter::once(self.entry_key.clone()).chain(epoch_keys).collect();
            let arguments = Arguments { keys: &keys, values: &self.values };
            let value = connection.run(self.script, &arguments, deadline).await?;
            let reply = Reply::new(value, &self.entry_key)?;
            if let Some(epochs) = reply.listed() {
                self.listed.set(&self.entry_key, epochs);
            }
            if reply.kind != Kind::Unnamed {
                return Ok(reply);
            }
        }
        Err(connection.unavailable(&format!("{} changes its epochs faster than they can be named", self.entry_key)))
    }

    /// Notes what the entry lists after a write.
    pub(super) fn written(&self) {
        let mut listed = self.listed.of(&self.entry_key);
        listed.extend(&self.written);
        self.listed.set(&self.entry_key, listed.split_off(&self.floor));
    }

    /// Notes that the entry lists nothing after a reset.
    pub(super) fn emptied(&self) {
        self.listed.set(&self.entry_key, BTreeSet::new());
    }

    pub(super) fn damaged(&self, field: &str, reason: &str) -> StoreError {
        damaged(&self.entry_key, field, reason)
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.text(&number.to_string())
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.values.push(text.into());
        self
    }
}

/// What a script answers first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// There is no entry, or one whose epochs are not whole.
    None,
    /// The entry follows.
    Entry,
    /// The write was applied.
    Applied,
    /// The write was not applied; the entry that is there follows.
    Fenced,
    /// The entry, which follows, lists an epoch that was not named.
    Unnamed,
}

/// The reply of a script, taken apart from front to back.
pub(super) struct Reply {
    kind: Kind,
    fields: Option<BTreeMap<String, String>>,
    parts: std::vec::IntoIter<Value>,
    entry_key: String,
}

impl Reply {
    fn new(value: Value, entry_key: &str) -> Result<Self, StoreError> {
        let mut parts = list(value)?.into_iter();
        let kind = match utf8(bytes(parts.next().unwrap_or(Value::Nil))?)?.as_str() {
            "none" | "lost" => Kind::None,
            "entry" => Kind::Entry,
            "applied" => Kind::Applied,
            "fenced" => Kind::Fenced,
            "unnamed" => Kind::Unnamed,
            _ => return Err(unexpected("another kind")),
        };
        let fields = match parts.next() {
            Some(fields) => Some(
                pairs(list(fields)?)?
                    .map(|pair| pair.and_then(|(field, value)| Ok((field, utf8(value)?))))
                    .collect::<Result<_, _>>()?,
            ),
            None => None,
        };
        Ok(Self { kind, fields, parts, entry_key: entry_key.to_owned() })
    }

    /// Whether the store has no entry.
    pub(super) fn is_none(&self) -> bool {
        self.kind == Kind::None
    }

    /// Whether a write was applied.
    pub(super) fn is_applied(&self) -> bool {
        self.kind == Kind::Applied
    }

    /// The outcome of a guarded write.
    pub(super) fn outcome(&self) -> Result<WriteOutcome, StoreError> {
        match self.kind {
            Kind::Applied => Ok(WriteOutcome::Applied),
            Kind::None => Ok(WriteOutcome::Fenced(None)),
            _ => Ok(WriteOutcome::Fenced(Some(self.entry()?.0))),
        }
    }

    /// The entry, and the number of groups in each of its epochs.
    pub(super) fn entry(&self) -> Result<(Entry, BTreeMap<Epoch, u64>), StoreError> {
        self.fields()?.read()
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

    /// The epochs that the entry lists, where the reply shows one that this version can read.
    fn listed(&self) -> Option<BTreeSet<Epoch>> {
        let fields = self.fields().ok().filter(Fields::has_known_format)?.fields;
        let epochs = fields.keys().filter_map(|field| field.strip_prefix("groups:")?.parse().ok());
        Some(epochs.map(Epoch).collect())
    }

    fn fields(&self) -> Result<Fields<'_>, StoreError> {
        let fields = self.fields.as_ref().ok_or_else(|| unexpected("no entry"))?;
        Ok(Fields { fields, entry_key: &self.entry_key })
    }
}

/// The fields of an entry's hash.
struct Fields<'a> {
    fields: &'a BTreeMap<String, String>,
    entry_key: &'a str,
}

impl Fields<'_> {
    fn has_known_format(&self) -> bool {
        self.fields.get("format").map(String::as_str) == Some(FORMAT)
    }

    fn read(&self) -> Result<(Entry, BTreeMap<Epoch, u64>), StoreError> {
        if !self.has_known_format() {
            let reason = format!("this version reads format {FORMAT}; delete the key to have it rebuilt");
            return Err(damaged(self.entry_key, "format", &reason));
        }
        let entry = Entry {
            position: ReaderPosition { offset: Offset(self.number("offset")?), epoch: Epoch(self.number("epoch")?) },
            start: Epoch(self.number("start")?),
            floor: Epoch(self.number("floor")?),
            event_time_max_us: self.optional_number("event_time_max_us")?,
            rebuilding_to: self.optional_number("rebuilding_to")?.map(Offset),
            halted: self.fields.get("halted").cloned(),
            // Entries that were written before anything could be lost do not tell.
            lost: if self.fields.contains_key("lost") { self.number("lost")? } else { 0 },
        };
        Ok((entry, self.groups()?))
    }

    fn groups(&self) -> Result<BTreeMap<Epoch, u64>, StoreError> {
        let mut groups = BTreeMap::new();
        for field in self.fields.keys() {
            if let Some(epoch) = field.strip_prefix("groups:") {
                let epoch = epoch.parse().map_err(|_| damaged(self.entry_key, field, "no epoch"))?;
                groups.insert(Epoch(epoch), self.number(field)?);
            }
        }
        Ok(groups)
    }

    fn optional_number<T: std::str::FromStr>(&self, field: &str) -> Result<Option<T>, StoreError> {
        self.fields.contains_key(field).then(|| self.number(field)).transpose()
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
