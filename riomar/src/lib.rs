//! The `riomar` binary as a library: command line, configuration, and the wiring of the layers.
//!
//! [`cli`] says what the command line looks like, [`command`] what each command does, [`config`] what can be configured.
//! [`objects`] opens the object store. [`platform`] puts the layers together, for `riomar up` and for tests alike. [`client`] is how
//! the client commands, and the [`demo`], talk to a platform.

pub mod cli;
pub mod client;
pub mod command;
pub mod config;
pub mod demo;
pub mod journal;
pub mod objects;
pub mod output;
mod own_folder;
pub mod platform;
