//! Making a body's events durable: first the log, then quarantine.
//!
//! Should quarantine fail behind a successful append, the client is told to send the body again; the log's readers leave out what
//! is then in the log twice. The other order would leave entries in quarantine twice, where nothing removes them.

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use riomar_event_log::quarantine::{EntryKind, QuarantineEntry};
use riomar_schemas::{Stream, Violation, record::RecordBody};

use super::{
    limits::{APPEND_BYTES_MAX, APPEND_EVENTS_MAX, QUARANTINE_APPEND_BYTES_MAX},
    sort::Sorted,
};
use crate::{app::Services, problem::ApiError};

/// Stores all of it; returns once it is durable.
///
/// # Errors
/// Whatever the log reports. Nothing was promised then.
pub(super) async fn store(services: &Services, stream: &Stream, sorted: &Sorted, received_at_ms: i64) -> Result<(), ApiError> {
    for chunk in chunks(&sorted.records, APPEND_BYTES_MAX, |(_, body)| body_bytes(body)) {
        let outcome = services.log.append(&stream.name, chunk.to_vec()).await;
        services.append_health.note(&outcome, services.clock.now_ms());
        outcome?;
    }
    for chunk in chunks(&sorted.refused, QUARANTINE_APPEND_BYTES_MAX, |(raw, _)| raw.len()) {
        let entries: Vec<_> = chunk.iter().map(|(raw, reason)| quarantined(raw, reason, received_at_ms)).collect();
        services.quarantine.append(&stream.name, &entries).await?;
    }
    if let Some(reason) = &sorted.rejection {
        let entry = QuarantineEntry {
            kind: EntryKind::Rejected,
            events: sorted.summary.rejected,
            reason: reason.clone(),
            received_at_ms,
            raw: None,
            raw_base64: None,
            position: None,
        };
        services.quarantine.append(&stream.name, &[entry]).await?;
    }
    Ok(())
}

fn body_bytes(body: &RecordBody) -> usize {
    match body {
        RecordBody::Event(event) => event.len(),
        RecordBody::Cut(_) => 0,
    }
}

/// The longest runs of items that one append may bring.
fn chunks<T>(items: &[T], bytes_max: usize, bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut total = 0;
        let mut fits = |item: &T| {
            let first = total == 0;
            total += bytes(item).max(1);
            first || total <= bytes_max
        };
        let length = rest.iter().take(APPEND_EVENTS_MAX).take_while(|item| fits(item)).count();
        let (chunk, behind) = rest.split_at(length);
        rest = behind;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn quarantined(raw: &Bytes, reason: &Violation, received_at_ms: i64) -> QuarantineEntry {
    let text = std::str::from_utf8(raw);
    QuarantineEntry {
        kind: EntryKind::Quarantined,
        events: 1,
        reason: reason.clone(),
        received_at_ms,
        raw: text.ok().map(str::to_owned),
        raw_base64: text.is_err().then(|| BASE64_STANDARD.encode(raw)),
        position: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(items: &[usize]) -> Vec<usize> {
        chunks(items, APPEND_BYTES_MAX, |bytes| *bytes).map(<[usize]>::len).collect()
    }

    #[test]
    fn chunks_keep_both_limits() {
        assert_eq!(lengths(&[]), Vec::<usize>::new());
        assert_eq!(lengths(&vec![0; APPEND_EVENTS_MAX]), [APPEND_EVENTS_MAX]);
        assert_eq!(lengths(&vec![0; APPEND_EVENTS_MAX + 1]), [APPEND_EVENTS_MAX, 1]);
        assert_eq!(lengths(&[APPEND_BYTES_MAX / 2, APPEND_BYTES_MAX / 2, 1]), [2, 1]);
        assert_eq!(lengths(&[APPEND_BYTES_MAX * 2, 1]), [1, 1]);
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let reason = Violation { code: "invalid_utf8".to_owned(), pointer: String::new(), detail: String::new() };
        let entry = quarantined(&Bytes::from_static(b"{\"a\":\"\xff\"}"), &reason, 7);
        assert_eq!((entry.raw, entry.raw_base64.as_deref()), (None, Some("eyJhIjoi/yJ9")));
    }
}
