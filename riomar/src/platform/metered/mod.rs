//! Errors of the log, the object store and the realtime store as metrics: one decorator around each seam, so that no call is
//! forgotten and none has to remember.
//!
//! What an answer is made of is no error: an object that is not there, one that is there already, a precondition that does not hold,
//! an offset that the log no longer holds. Whoever asked goes on from there.

mod log;
mod objects;
mod realtime;

use metrics::{Unit, counter, describe_counter};

pub(super) use self::{log::MeteredLog, objects::MeteredObjects, realtime::MeteredRealtime};

/// Says what the metrics of the seams mean; call it once the recorder is installed.
pub(super) fn describe() {
    describe_counter!(log::ERRORS.name, Unit::Count, "Calls of the log that failed, by operation and kind");
    describe_counter!(objects::ERRORS.name, Unit::Count, "Calls of the object store that failed, by operation and kind");
    describe_counter!(realtime::ERRORS.name, Unit::Count, "Calls of the realtime store that failed, by operation and kind");
}

/// The counter of one seam's errors.
struct Errors {
    name: &'static str,
    operations: &'static [&'static str],
    kinds: &'static [&'static str],
}

impl Errors {
    /// Makes every error known before the first one: a rise from nothing is seen by nobody.
    fn begin(&self) {
        for operation in self.operations {
            self.kinds.iter().for_each(|kind| self.add(operation, kind, 0));
        }
    }

    /// Counts an error of this kind; none where there is no kind.
    fn count(&self, operation: &'static str, kind: Option<&'static str>) {
        if let Some(kind) = kind {
            self.add(operation, kind, 1);
        }
    }

    fn add(&self, operation: &'static str, kind: &'static str, errors: u64) {
        counter!(self.name, "operation" => operation, "kind" => kind).increment(errors);
    }
}

#[cfg(test)]
mod tests;
