//! Environment variables that begin with `RIOMAR_` and set no key: a slip stops the start, what others set does not.

use super::{file::distance, keys};

/// What variables meant for Riomar begin with.
pub const PREFIX: &str = "RIOMAR_";
/// Edits that a slip of the pen is away from what was meant.
const SLIP_EDITS_MAX: usize = 2;

/// What is wrong with a variable that sets no key; `None` where somebody else may have set it.
pub fn refuse(variable: &str, value: &str) -> Option<String> {
    if keys::OTHER_VARIABLES.contains(&variable) || is_of_kubernetes(variable, value) {
        return None;
    }
    let known = keys::KEYS.iter().map(keys::Key::variable).chain(keys::OTHER_VARIABLES.iter().map(ToString::to_string));
    let nearest = known.map(|name| (distance(&name, variable), name)).min();
    Some(match nearest {
        Some((edits, nearest)) if edits <= SLIP_EDITS_MAX => {
            format!("there is no such variable: did you mean {nearest}?")
        }
        _ => {
            "there is no such variable: `riomar config check` lists all keys; batch.every is set by RIOMAR_BATCH_EVERY".to_owned()
        }
    })
}

/// Kubernetes tells every pod of the services beside it. One called `riomar`, or `riomar-…`, is told of in variables that begin with
/// `RIOMAR_`: `…_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_{name}`, `…_PORT`, `…_PORT_{number}_TCP`, `…_PORT_{number}_TCP_ADDR`.
fn is_of_kubernetes(variable: &str, value: &str) -> bool {
    let name = variable.strip_prefix("RIOMAR").unwrap_or(variable);
    let of_port = |(at, part): (usize, &str)| {
        let mut parts = name[at + part.len()..].split('_');
        parts.next().is_some_and(|number| number.parse::<u16>().is_ok())
            && parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.match_indices("_PORT_").any(of_port)
        || name.ends_with("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_from_what_others_set() {
        for (variable, value) in [
            ("RIOMAR_SERVICE_HOST", "10.0.0.1"),
            ("RIOMAR_SERVICE_PORT", "8080"),
            ("RIOMAR_SERVICE_PORT_HTTP", "8080"),
            ("RIOMAR_PORT", "tcp://10.0.0.1:8080"),
            ("RIOMAR_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("RIOMAR_PORT_8080_TCP_PROTO", "tcp"),
            ("RIOMAR_PORT_8080_TCP_PORT", "8080"),
            ("RIOMAR_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("RIOMAR_INGEST_SERVICE_HOST", "10.0.0.2"),
            ("RIOMAR_INGEST_PORT_53_UDP", "udp://10.0.0.2:53"),
            ("RIOMAR_CONFIG", "riomar.toml"),
        ] {
            assert_eq!(refuse(variable, value), None, "{variable}");
        }
        for (variable, value, meant) in [
            ("RIOMAR_BATCH_EVRY", "1m", "did you mean RIOMAR_BATCH_EVERY?"),
            ("RIOMAR_CONFIGS", "x", "did you mean RIOMAR_CONFIG?"),
            ("RIOMAR_PORT", "8080", "`riomar config check` lists all keys"),
            ("RIOMAR_SERVING_PORT", "8080", "`riomar config check` lists all keys"),
            ("RIOMAR_PORT_HTTP", "8080", "`riomar config check` lists all keys"),
        ] {
            let message = refuse(variable, value).expect(variable);
            assert!(message.contains(meant), "{variable}: {message}");
        }
    }
}
