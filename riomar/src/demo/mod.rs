//! The demo: sample traffic that is sent through the platform's real front door, and a table to watch it.

pub mod feed;
pub mod freshness;
pub mod screen;
pub mod traffic;
pub mod watch;

/// The stream that the sample traffic belongs to.
pub const STREAM: &str = "page_views";
/// The view that is watched.
pub const VIEW: &str = "traffic_by_minute";

/// The definitions that the demo brings along: file name and SQL.
pub const DEFINITIONS: [(&str, &str); 3] = [
    ("page_views.sql", include_str!("../../../schemas/page_views.sql")),
    ("errors_by_minute.sql", include_str!("../../../schemas/errors_by_minute.sql")),
    ("visitors_by_hour.sql", include_str!("../../../schemas/visitors_by_hour.sql")),
];
