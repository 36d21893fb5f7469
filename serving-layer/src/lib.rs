//! The serving layer: ingestion and queries over HTTP.
//!
//! [`app`] puts the routes together over [`Services`]; [`server::run`] serves them. Each resource is a file with its own routes;
//! every error leaves through [`problem`]. `query` merges batch views and realtime views; it knows no HTTP.

pub mod account;
pub mod account_metrics;
mod answer;
mod app;
pub mod audit;
mod extract;
pub mod hand_over;
pub mod ingestion;
mod losses;
pub mod metrics;
mod openapi;
pub mod probes;
pub mod problem;
mod problem_types;
pub mod processes;
mod quarantine;
pub mod query;
pub mod requests;
pub mod roles;
mod rows_json;
mod runs;
pub mod server;
mod sql;
pub mod starting;
mod streams;
#[cfg(test)]
mod testing;
mod time;
mod views;

pub use answer::RECEIPT;
pub use app::{AppState, Services, app};
