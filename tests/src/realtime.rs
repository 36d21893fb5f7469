//! The realtime stores that scenarios run on: in memory, or one database of a real Redis. Both can be emptied and restored old.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use riomar_infra::RedisServer;
use riomar_speed_layer::{MemoryStore, RealtimeStore, RedisLimits, RedisStore, RedisTls};

/// Databases of one Redis server; the upper half holds the snapshots of the lower half.
const DATABASES: u32 = 16;

/// A Redis that answers is fast here, and one that is back is noticed at once.
pub const REDIS_LIMITS: RedisLimits =
    RedisLimits { call_timeout: Duration::from_secs(2), breaker_failures: 3, breaker_period: Duration::from_millis(20) };

/// A realtime store that outlives the process which uses it, as far as its kind does.
#[derive(Debug)]
pub enum Realtime {
    /// In memory.
    Memory {
        /// Whether it survives the process, as Redis would.
        survives: bool,
        /// The store.
        store: Arc<MemoryStore>,
        /// The last snapshot.
        snapshot: Mutex<Option<MemoryStore>>,
    },
    /// One database of the Redis server that all scenarios share.
    Redis {
        /// The server.
        server: Arc<RedisServer>,
        /// The database.
        database: u32,
    },
}

impl Realtime {
    /// An empty store in the memory of the platform's process, which ends with it.
    #[must_use]
    pub fn memory() -> Self {
        Self::Memory { survives: false, store: Arc::new(MemoryStore::new()), snapshot: Mutex::new(None) }
    }

    /// An empty store that survives the platform's process.
    #[must_use]
    pub fn surviving() -> Self {
        Self::Memory { survives: true, store: Arc::new(MemoryStore::new()), snapshot: Mutex::new(None) }
    }

    /// An empty database of the shared Redis server, which ends with its last user. Scenarios that run at the same time take
    /// different databases, from 0 to 7.
    ///
    /// # Panics
    /// When Redis does not start.
    #[must_use]
    pub fn redis(database: u32) -> Self {
        static SHARED: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
        assert!(database < DATABASES / 2, "the upper half is for snapshots");
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let server = shared.upgrade().unwrap_or_else(|| Arc::new(RedisServer::start().expect("redis-server")));
        *shared = Arc::downgrade(&server);
        let realtime = Self::Redis { server, database };
        realtime.clear();
        // A snapshot that the scenario before left is not this one's.
        realtime.save();
        realtime
    }

    /// The store as a new process opens it.
    ///
    /// # Panics
    /// Never: the address is valid.
    #[must_use]
    pub fn open(&self) -> Arc<dyn RealtimeStore> {
        match self {
            Self::Memory { survives, store, .. } => {
                if !survives {
                    store.clear();
                }
                store.clone()
            }
            Self::Redis { server, database } => connect(&format!("{}/{database}", server.url())),
        }
    }

    /// Removes everything from it.
    pub fn clear(&self) {
        match self {
            Self::Memory { store, .. } => store.clear(),
            Self::Redis { database, .. } => self.evaluate("redis.call('SELECT', ARGV[1]) redis.call('FLUSHDB')", *database, 0),
        }
    }

    /// Copies everything, to be restored later.
    pub fn save(&self) {
        match self {
            Self::Memory { store, snapshot, .. } => *snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Some(store.copy()),
            Self::Redis { database, .. } => self.copy(*database, database + DATABASES / 2),
        }
    }

    /// Puts back what was saved last; empties it where nothing was.
    pub fn restore(&self) {
        match self {
            Self::Memory { store, snapshot, .. } => match &*snapshot.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(older) => store.restore(older),
                None => store.clear(),
            },
            Self::Redis { database, .. } => self.copy(database + DATABASES / 2, *database),
        }
    }

    fn copy(&self, from: u32, to: u32) {
        self.evaluate("redis.call('SELECT', ARGV[1]) redis.call('FLUSHDB')", to, 0);
        self.evaluate(
            "redis.call('SELECT', ARGV[1]) \
             for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', key, key, 'DB', ARGV[2]) end",
            from,
            to,
        );
    }

    fn evaluate(&self, script: &str, first: u32, second: u32) {
        let Self::Redis { server, .. } = self else { return };
        server.command(&["EVAL", script, "0", &first.to_string(), &second.to_string()]).expect("Redis answers");
    }
}

/// The realtime store at a Redis address.
///
/// # Panics
/// When the address is none.
#[must_use]
pub fn connect(url: &str) -> Arc<dyn RealtimeStore> {
    let address = url.parse().expect("the address of a server that runs");
    Arc::new(RedisStore::connect(&address, &RedisTls::default(), "test", REDIS_LIMITS).expect("no certificates"))
}
