//! The batch layer: lands the log in the master dataset, and recomputes batch views from it.
//!
//! ```text
//! log ──▶ landing ──▶ master dataset ──▶ recompute ──▶ generations ──▶ queries
//!  ▲                        ▲                │
//!  └──────── cuts ──────────┴── compaction   └── audit
//! ```
//!
//! Everything is stored in one object store, and every change that counts is the creation of one object that was not there: a
//! commit of a master dataset, the number of a cut, a generation's manifest. So no lock is needed, any number of processes may do
//! the same work, and whoever is killed in the middle leaves nothing but files that belong to nothing.

pub mod audit;
pub mod compaction;
pub mod conformance;
mod context;
mod cuts;
mod error;
mod generation_metrics;
pub mod generations;
mod history;
pub mod landing;
mod layer;
pub mod leadership;
pub mod losses;
pub mod master;
pub mod notices;
mod objects;
#[cfg(test)]
mod over_s3;
mod parquet_file;
pub mod recompute;
pub mod retention;
pub mod runs;
pub mod scan;
pub mod schedule;
mod telemetry;
#[cfg(test)]
mod testing;

pub use context::{Context, FreshIds};
pub use cuts::{CutProgress, Cuts};
pub use error::BatchError;
pub use history::BatchHistory;
pub use layer::{BatchComponents, BatchConfig, BatchLayer, LandedAccount};
pub use telemetry::describe;
