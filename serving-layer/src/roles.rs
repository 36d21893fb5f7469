//! The roles that a process may have, and what it answers in each.

use std::{collections::BTreeSet, fmt, str::FromStr};

/// One kind of work. Any number of processes may have the same role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Takes events in.
    Ingest,
    /// Keeps realtime views.
    Speed,
    /// Lands the log, recomputes views and publishes generations.
    Batch,
    /// Answers queries.
    Serve,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Speed, Self::Batch, Self::Serve];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Speed => "speed",
            Self::Batch => "batch",
            Self::Serve => "serve",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The roles of one process; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// All of them: one process is the whole platform.
    #[must_use]
    pub fn all() -> Self {
        Self(Role::ALL.into())
    }

    /// Whether the process has a role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|role| role.name()).collect()
    }

    /// Whether the process has every role.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.0.len() == Role::ALL.len()
    }
}

impl Default for Roles {
    fn default() -> Self {
        Self::all()
    }
}

impl From<Role> for Roles {
    fn from(role: Role) -> Self {
        Self([role].into())
    }
}

impl FromStr for Roles {
    type Err = String;

    /// Reads `all`, or the names of roles with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::all());
        }
        let role = |name: &str| {
            let found = Role::ALL.into_iter().find(|role| role.name() == name.trim());
            found.ok_or_else(|| format!("'{name}' is no role: write all, or some of ingest, speed, batch and serve, with commas"))
        };
        text.split(',').map(role).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.are_all() {
            return f.write_str("all");
        }
        f.write_str(&self.names().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Platform;

    #[tokio::test]
    async fn a_process_answers_what_its_roles_serve() {
        let routes = [
            (Role::Ingest, "/v1/streams/page_views/events"),
            (Role::Batch, "/v1/batch/runs"),
            (Role::Batch, "/v1/streams/page_views/losses"),
            (Role::Serve, "/v1/sql"),
            (Role::Serve, "/v1/views/traffic/audit"),
        ];
        for role in Role::ALL {
            let platform = Platform::with_roles(role.into()).await;
            for (of, path) in routes {
                let reply = platform.post(path, &[("content-type", "application/json")], "[]").await;
                assert_eq!(reply.status == 421, of != role, "{role}: {path}: {}", reply.status);
                if of != role {
                    let problem = reply.json();
                    assert_eq!(problem["code"], "other_role");
                    assert!(problem["detail"].as_str().expect("a text").contains(of.name()), "{problem}");
                }
            }
            for path in ["/livez", "/readyz", "/metrics", "/openapi.json"] {
                assert_eq!(platform.get(path).await.status, 200, "{role}: {path}");
            }
        }
    }

    #[test]
    fn roles_are_read_and_shown() {
        for (text, shown) in
            [("all", "all"), ("ingest", "ingest"), ("serve, ingest", "ingest,serve"), ("ingest,speed,batch,serve", "all")]
        {
            assert_eq!(text.parse::<Roles>().expect(text).to_string(), shown);
        }
        for text in ["", "none", "ingest,", "Ingest"] {
            assert!(text.parse::<Roles>().expect_err(text).contains("is no role"));
        }
    }
}
