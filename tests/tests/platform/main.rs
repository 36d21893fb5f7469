//! Tests of the whole platform. Each module is a promise of the contract, or a rule of the repository.

mod account;
mod bad_input;
mod batch_runs;
mod crash_points;
mod deployment;
mod exactness;
mod full_disk;
mod hungry;
mod kill;
mod lost_log;
mod metrics;
mod outside;
mod processes;
mod readme;
mod rebuild;
mod redis_faults;
mod services;
mod starting;
mod supply_chain;
mod tidy;
mod web_log;
