//! The worker on a real log, with both stores, against a plain evaluation of the records.

mod failures;
mod flaky;
mod history;
mod losses;
mod lost_log;
mod random;
mod scenarios;
mod world;
