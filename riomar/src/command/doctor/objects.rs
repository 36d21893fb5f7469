//! Whether the object store does what cuts and generations rest on: an object is created once and only once, whoever tries it when.

use bytes::Bytes;
use futures::future::join_all;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, path::Path};
use riomar_batch_layer::FreshIds;

use super::PROBES;
use crate::{config::Config, objects};

/// How often creations race. A store that looks first and writes then lets two of them through in most races, and not in all.
const RACES: usize = 8;
/// How many creations race at once.
const RACERS: usize = 4;
/// What to do about a store that lets two creations of one object succeed.
const ADVICE: &str = "cuts and generations are not safe in it: two batch processes could overwrite each other. Choose a store, or a \
                      version of this one, whose PUT with If-None-Match: * is atomic; until then run one process with the role batch";

/// Tries the store; the objects that it writes it removes again.
pub(super) async fn works(config: &Config) -> Result<String, String> {
    let store = objects::open(config).await.map_err(|error| error.to_string())?;
    tried(&*store, &FreshIds::random()).await?;
    Ok(format!("{}: creates once, also when creations race; reads and removes", config.master.url.place(&config.data)))
}

async fn tried(store: &dyn ObjectStore, fresh_ids: &FreshIds) -> Result<(), String> {
    probed(store, fresh_ids, async |path| created_once(store, path).await).await?;
    for _ in 0..RACES {
        probed(store, fresh_ids, async |path| raced(store, path).await).await?;
    }
    Ok(())
}

/// A trial with a path of its own, where nothing is left.
async fn probed(
    store: &dyn ObjectStore,
    fresh_ids: &FreshIds,
    trial: impl AsyncFnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let path = Path::from(PROBES).join(format!("{}.json", fresh_ids.next().simple()));
    let tried = trial(&path).await;
    let removed = store.delete(&path).await.map_err(|error| format!("{path} cannot be removed: {error}"));
    tried.and(removed)
}

async fn create(store: &dyn ObjectStore, path: &Path, text: &'static str) -> Result<(), Error> {
    store.put_opts(path, PutPayload::from_static(text.as_bytes()), PutMode::Create.into()).await.map(drop)
}

async fn read(store: &dyn ObjectStore, path: &Path) -> Result<Bytes, String> {
    let read = async { store.get(path).await?.bytes().await };
    read.await.map_err(|error| format!("{path} cannot be read: {error}"))
}

/// One after the other: the second creation must fail.
async fn created_once(store: &dyn ObjectStore, path: &Path) -> Result<(), String> {
    create(store, path, "1").await.map_err(|error| format!("{path} cannot be created: {error}"))?;
    match create(store, path, "2").await {
        Err(Error::AlreadyExists { .. }) => {}
        Ok(()) => return Err(format!("this store overwrites what must be created once, for it ignores If-None-Match: {ADVICE}")),
        Err(error) => return Err(format!("creating {path} a second time: {error}")),
    }
    match read(store, path).await?.as_ref() {
        b"1" => Ok(()),
        _ => Err(format!("{path} does not hold what was written into it")),
    }
}

/// All at once: exactly one creation may succeed, and the object is its own.
async fn raced(store: &dyn ObjectStore, path: &Path) -> Result<(), String> {
    const TEXTS: [&str; RACERS] = ["1", "2", "3", "4"];
    let outcomes = join_all(TEXTS.map(|text| create(store, path, text))).await;
    let mut winners = Vec::new();
    for (text, outcome) in TEXTS.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => winners.push(text),
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(format!("creating {path} while others do: {error}")),
        }
    }
    let found = read(store, path).await?;
    match winners.as_slice() {
        [winner] if found == winner.as_bytes() => Ok(()),
        [_] => Err(format!(
            "of {RACERS} creations of one object one succeeded, and the object holds another one's content: {ADVICE}"
        )),
        // Whose reply was lost is told that the object is there, when the request is sent again.
        [] if TEXTS.iter().any(|text| found == text.as_bytes()) => Ok(()),
        [] => Err(format!("{path} does not hold what was written into it")),
        several => Err(format!("{} of {RACERS} creations of one object at the same time succeeded: {ADVICE}", several.len())),
    }
}

#[cfg(test)]
mod tests;
