//! Every path in the object store. No other module writes one out.
//!
//! ```text
//! deployment.json                                   created once: the deployment's id
//! leader/{term}.json                                created once, then written by its holder alone: who leads the batch layer
//! processes/{id}.json                               written by one process alone, again and again: what it tells of itself
//! runs/{id}.json                                    written by the process that carries the run out: how far it is
//! streams/{stream}/master/…                         the master dataset, a Delta table
//! streams/{stream}/cuts/{cut}/cut.json              created once: the number is taken
//! streams/{stream}/cuts/{cut}/{partition}.json      created once: the first position behind the cut
//! streams/{stream}/partitions/{partition}.json      created once: the partition's first epoch
//! views/{view}/{fingerprint}/generations/{n}.json   created once: generation n is published
//! views/{view}/{fingerprint}/data/{uuid}.parquet    states of one window partition
//! ```

use object_store::path::Path;

use crate::{
    name::Name,
    position::{Epoch, PartitionId},
    view::View,
};

/// The object whose creation gives the deployment its id.
#[must_use]
pub fn deployment() -> Path {
    Path::from("deployment.json")
}

/// The folder of the batch layer's leases.
#[must_use]
pub fn leaders() -> Path {
    Path::from("leader")
}

/// The lease of the batch layer in one term; creating it takes the term.
#[must_use]
pub fn leader(term: u64) -> Path {
    leaders().join(format!("{}.json", padded(term)))
}

/// The folder of what the processes tell of themselves.
#[must_use]
pub fn processes() -> Path {
    Path::from("processes")
}

/// What one process tells of itself.
#[must_use]
pub fn process(id: &str) -> Path {
    processes().join(format!("{id}.json"))
}

/// The folder of what is told of runs.
#[must_use]
pub fn runs() -> Path {
    Path::from("runs")
}

/// What is told of one run.
#[must_use]
pub fn run(id: &str) -> Path {
    runs().join(format!("{id}.json"))
}

/// The root of a stream's master dataset.
#[must_use]
pub fn master(stream: &Name) -> Path {
    Path::from_iter(["streams", stream.as_str(), "master"])
}

/// The folder of a stream's cuts.
#[must_use]
pub fn cuts(stream: &Name) -> Path {
    Path::from_iter(["streams", stream.as_str(), "cuts"])
}

/// The folder of one cut.
#[must_use]
pub fn cut_folder(stream: &Name, cut: Epoch) -> Path {
    cuts(stream).join(padded(cut.0))
}

/// The object whose creation hands out the number of a cut.
#[must_use]
pub fn cut(stream: &Name, cut: Epoch) -> Path {
    cut_folder(stream, cut).join("cut.json")
}

/// The object that records the first position behind a cut in one partition.
#[must_use]
pub fn cut_position(stream: &Name, cut: Epoch, partition: PartitionId) -> Path {
    cut_folder(stream, cut).join(format!("{partition}.json"))
}

/// The folder of a stream's registered partitions.
#[must_use]
pub fn partitions(stream: &Name) -> Path {
    Path::from_iter(["streams", stream.as_str(), "partitions"])
}

/// The object that registers a partition and its first epoch.
#[must_use]
pub fn partition(stream: &Name, partition: PartitionId) -> Path {
    partitions(stream).join(format!("{partition}.json"))
}

/// The folder of all generations' manifests of a view.
#[must_use]
pub fn generations(view: &View) -> Path {
    Path::from_iter(["views", view.name().as_str(), view.fingerprint(), "generations"])
}

/// The manifest of one generation; creating it publishes the generation.
#[must_use]
pub fn generation(view: &View, generation: u64) -> Path {
    generations(view).join(format!("{}.json", padded(generation)))
}

/// The folder of a view's Parquet files.
#[must_use]
pub fn generation_data(view: &View) -> Path {
    Path::from_iter(["views", view.name().as_str(), view.fingerprint(), "data"])
}

/// The number in the name of a manifest, a lease, a registered partition or a cut's folder, if it is one.
#[must_use]
pub fn number(path: &Path) -> Option<u64> {
    path.filename()?.split('.').next()?.parse().ok()
}

/// Numbers are padded so that a listing is in order.
fn padded(number: u64) -> String {
    format!("{number:020}")
}
