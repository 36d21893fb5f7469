//! Where the broker's files are: fetched once for each user and version, with Maven.
//!
//! ```text
//! {home}/libs/*.jar           what infra/kafka/pom.xml names
//! {home}/log4j2.properties    how much a broker writes
//! {home}/storage/             a formatted, empty data directory; each broker starts from a copy
//! {home}/storage-with-user/   one with the user that clients log in as
//! ```
//! Each of them is made beside its place and renamed when it is whole, so whoever finds one can use it, and of two processes that
//! make it at the same time one is a little late.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use super::{PASSWORD, USER};
use crate::{
    error::{Doing, ServiceError},
    process::{Process, find_program, tail, wait_until},
};

/// The version of `org.apache.kafka:kafka_2.13`.
const VERSION: &str = "4.1.0";
const POM: &str = include_str!("../../kafka/pom.xml");
const LOGGING: &str = include_str!("../../kafka/log4j2.properties");
const JAVA: (&str, &str) = ("java", "apt-get install openjdk-17-jre-headless");
const MAVEN: (&str, &str) = ("mvn", "apt-get install maven");
/// For fetching about 45 MB.
const FETCH_DEADLINE: Duration = Duration::from_secs(600);
/// For formatting a data directory.
const FORMAT_DEADLINE: Duration = Duration::from_secs(60);
/// Memory for it, in MiB.
const FORMAT_HEAP_MIB: u32 = 128;
const STORAGE: &str = "storage";
const STORAGE_WITH_USER: &str = "storage-with-user";
/// Any will do; a broker compares it with the one in its data directory.
const CLUSTER_ID: &str = "cmlvbWFyLWZvci10ZXN0cw";

/// The files of a broker on this machine.
#[derive(Debug, Clone)]
pub(super) struct Home {
    java: PathBuf,
    directory: PathBuf,
}

impl Home {
    /// Finds the files, or fetches them.
    pub(super) fn open() -> Result<Self, ServiceError> {
        let path = env::var_os("PATH");
        let java = find_program(JAVA.0, JAVA.1, path.as_deref())?;
        let home = Self { java, directory: directory(env::var_os)? };
        fs::create_dir_all(&home.directory).doing(|| format!("creating {}", home.directory.display()))?;
        home.make("libs", |libs| fetch(libs, path.as_deref()))?;
        home.make("log4j2.properties", |place| write(place, LOGGING))?;
        home.make(STORAGE, |storage| home.format(storage, &[]))?;
        Ok(home)
    }

    /// Starts the JVM with a class of Kafka's, small and quick to start rather than fast.
    pub(super) fn command(&self, class: &str, heap_mib: u32) -> Command {
        let mut command = Command::new(&self.java);
        command.arg(format!("-Xmx{heap_mib}m"));
        command.args(["-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"]);
        command.arg(format!("-Dlog4j2.configurationFile={}", self.directory.join("log4j2.properties").display()));
        command.arg("-cp").arg(self.directory.join("libs").join("*")).arg(class);
        command
    }

    /// Copies the empty data directory to a new directory, for the node of this number.
    pub(super) fn copy_storage(&self, to: &Path, number: usize, with_user: bool) -> Result<(), ServiceError> {
        let from = if with_user { STORAGE_WITH_USER } else { STORAGE };
        if with_user {
            let users = ["SCRAM-SHA-256", "SCRAM-SHA-512"].map(|name| format!("{name}=[name={USER},password={PASSWORD}]"));
            self.make(from, |storage| self.format(storage, &users))?;
        }
        let doing = || format!("copying an empty data directory to {}", to.display());
        fs::create_dir(to).doing(doing)?;
        for entry in fs::read_dir(self.directory.join(from)).doing(doing)? {
            let entry = entry.doing(doing)?;
            fs::copy(entry.path(), to.join(entry.file_name())).doing(doing)?;
        }
        let identity = to.join("meta.properties");
        let text = fs::read_to_string(&identity).doing(|| format!("reading {}", identity.display()))?;
        write(&identity, &with_number(&text, number))
    }

    /// Makes one of the files or directories, if it is not there.
    fn make(&self, name: &str, make: impl FnOnce(&Path) -> Result<(), ServiceError>) -> Result<(), ServiceError> {
        let place = self.directory.join(name);
        if place.exists() {
            return Ok(());
        }
        let beside = TempDir::with_prefix_in(".being-made-", &self.directory)
            .doing(|| format!("creating a directory in {}", self.directory.display()))?;
        let made = beside.path().join(name);
        make(&made)?;
        match fs::rename(&made, &place) {
            // Another process was faster, and what it made is as good.
            Err(_) if place.exists() => Ok(()),
            renamed => renamed.doing(|| format!("creating {}", place.display())),
        }
    }

    fn format(&self, storage: &Path, users: &[String]) -> Result<(), ServiceError> {
        let properties = storage.with_extension("properties");
        let settings = "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:1\n\
                        listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1\ncontroller.listener.names=CONTROLLER\n";
        write(&properties, &format!("{settings}log.dirs={}\n", storage.display()))?;
        let mut command = self.command("kafka.tools.StorageTool", FORMAT_HEAP_MIB);
        command.args(["format", "--cluster-id", CLUSTER_ID, "--config"]).arg(&properties);
        command.args(users.iter().flat_map(|user| ["--add-scram", user]));
        run(command, "java", "format a data directory", FORMAT_DEADLINE, &storage.with_extension("output"))
    }
}

/// What a data directory says of its owner, for the node of another number. No two directories of a cluster may have the same id.
fn with_number(identity: &str, number: usize) -> String {
    let line = |line: &str| match line.split_once('=') {
        Some(("node.id", _)) => format!("node.id={number}\n"),
        Some(("directory.id", id)) => format!("directory.id={number}{}\n", id.get(1..).unwrap_or_default()),
        _ => format!("{line}\n"),
    };
    identity.lines().map(line).collect()
}

/// `RIOMAR_KAFKA_HOME`, or a directory in the user's cache.
fn directory(variable: impl Fn(&'static str) -> Option<std::ffi::OsString>) -> Result<PathBuf, ServiceError> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(home) = set("RIOMAR_KAFKA_HOME") {
        return Ok(home);
    }
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let cache = cache.ok_or_else(|| ServiceError::Refused("set RIOMAR_KAFKA_HOME: neither it nor HOME is set".to_owned()))?;
    Ok(cache.join("riomar").join(format!("kafka-{VERSION}")))
}

fn fetch(libs: &Path, path: Option<&OsStr>) -> Result<(), ServiceError> {
    let mut command = Command::new(find_program(MAVEN.0, MAVEN.1, path)?);
    let pom = libs.with_file_name("pom.xml");
    write(&pom, POM)?;
    command.args(["--batch-mode", "--quiet", "--file"]).arg(&pom).arg("dependency:copy-dependencies");
    command.arg("-DincludeScope=runtime").arg(format!("-DoutputDirectory={}", libs.display()));
    run(command, MAVEN.0, "fetch Kafka", FETCH_DEADLINE, &libs.with_extension("output"))
}

/// Runs a program to its end.
fn run(command: Command, program: &str, what: &str, within: Duration, output: &Path) -> Result<(), ServiceError> {
    let mut process = Process::start(command, output)?;
    let program = program.to_owned();
    match wait_until(within, || process.ended())? {
        Some(status) if status.success() => Ok(()),
        Some(_) => Err(ServiceError::Ended { program, output: tail(output) }),
        None => Err(ServiceError::Deadline { program, what: what.to_owned(), waited: within, output: tail(output) }),
    }
}

fn write(place: &Path, text: &str) -> Result<(), ServiceError> {
    fs::write(place, text).doing(|| format!("writing {}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_pom() {
        assert!(POM.contains(&format!("<artifactId>kafka_2.13</artifactId>\n      <version>{VERSION}</version>")), "{VERSION}");
    }

    #[test]
    fn a_data_directory_is_that_of_one_node() {
        let identity = "#\nnode.id=1\ndirectory.id=_AlKRRtH_CzzAJWCGGMMgA\nversion=1\ncluster.id=c\n";
        let expected = "#\nnode.id=3\ndirectory.id=3AlKRRtH_CzzAJWCGGMMgA\nversion=1\ncluster.id=c\n";
        assert_eq!(with_number(identity, 3), expected);
    }

    #[test]
    fn the_directory_is_where_the_user_wants_it() {
        let with = |pairs: &'static [(&str, &str)]| {
            directory(move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into()))
        };
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[("RIOMAR_KAFKA_HOME", "/k"), ("HOME", "/h")], "/k"),
            (&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")], "/c/riomar/kafka-4.1.0"),
            (&[("HOME", "/h")], "/h/.cache/riomar/kafka-4.1.0"),
            (&[("XDG_CACHE_HOME", ""), ("HOME", "/h")], "/h/.cache/riomar/kafka-4.1.0"),
        ];
        for (pairs, expected) in cases {
            assert_eq!(with(pairs).expect("a directory"), PathBuf::from(expected));
        }
        assert!(with(&[]).expect_err("nowhere").to_string().contains("RIOMAR_KAFKA_HOME"));
    }

    #[test]
    fn maven_is_named_where_it_is_missing() {
        let empty = tempfile::tempdir().expect("a directory");
        let missing = fetch(&empty.path().join("libs"), Some(empty.path().as_os_str())).expect_err("no mvn there");
        assert_eq!(missing.to_string(), "'mvn' is not on PATH: install it, e.g. `apt-get install maven`");
    }

    #[test]
    fn of_two_that_make_the_same_one_is_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let home = Home { java: PathBuf::new(), directory: directory.path().to_owned() };
        let make = |text: &'static str| {
            home.make("libs", |libs| {
                fs::create_dir(libs).expect("creates");
                write(&libs.join("a.jar"), text)
            })
        };
        home.make("libs", |libs| {
            fs::create_dir(libs).expect("creates");
            make("the faster one's").expect("makes");
            write(&libs.join("a.jar"), "the slower one's")
        })
        .expect("finds the other's");
        make("too late").expect("does nothing");
        assert_eq!(fs::read_to_string(directory.path().join("libs/a.jar")).expect("reads"), "the faster one's");
        assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 1, "nothing half made is left");
    }
}
