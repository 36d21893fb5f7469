//! Limits of definitions and events: each has a name, a default and an error.

/// Columns a stream may declare.
pub const STREAM_COLUMNS_MAX: usize = 512;
/// Partitions a stream may declare.
pub const STREAM_PARTITIONS_MAX: u32 = 1024;
/// Measures a view may have.
pub const VIEW_MEASURES_MAX: usize = 64;
/// Dimensions a view may have, its window columns not counted.
pub const VIEW_DIMENSIONS_MAX: usize = 16;
/// Bytes of one `.sql` file.
pub const DEFINITION_FILE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of one event's JSON text.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// Nesting of an event's JSON: the event itself is level 1.
pub const EVENT_DEPTH_MAX: usize = 32;
/// Keys on the top level of an event.
pub const EVENT_KEYS_MAX: usize = 1024;
