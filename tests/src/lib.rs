//! The harness of the whole-platform tests: what to send, what the answers must be, and what to break.
//!
//! [`oracle`] computes answers from the log alone, [`workload`] generates events from a seed, [`faults`] kills the platform at a
//! chosen operation, and [`harness`] runs all of Riomar in this process, one step at a time.

pub mod answer;
pub mod catalog;
pub mod check;
pub mod client;
pub mod clock;
pub mod deployment;
pub mod faults;
pub mod harness;
pub mod logs;
pub mod lost;
pub mod oracle;
pub mod process;
pub mod realtime;
pub mod workload;
