//! The contract that every layer of Riomar shares.
//!
//! Streams and views as the user declares them, the decoding of events, the mergeable states that a view compiles to, positions
//! and cuts, receipts, and the name of every object and store key. Nothing here knows a service, a clock or a file system.

pub mod aggregate;
pub mod catalog;
pub mod decode;
pub mod definition;
pub mod generation;
pub mod keys;
pub mod limits;
pub mod name;
pub mod paths;
pub mod position;
pub mod receipt;
pub mod record;
pub mod session;
pub mod sql_error;
pub mod state_codec;
pub mod stream;
pub mod view;

pub use catalog::Catalog;
pub use decode::{EventDecoder, Violation};
pub use definition::DefinitionError;
pub use generation::{GenerationManifest, HandOver};
pub use name::Name;
pub use position::{Epoch, Offset, PartitionId, ReaderPosition};
pub use receipt::Receipt;
pub use stream::Stream;
pub use view::View;
