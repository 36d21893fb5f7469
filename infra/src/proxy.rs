//! A network that fails on demand: a TCP proxy between a client and a service.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// They arrive.
    Up,
    /// Nothing arrives, and nobody is told: connections stay open. What is held arrives when the network is up again.
    Silent,
    /// Every connection is closed, and new ones at once.
    Down,
    /// Requests arrive; of the reply nothing does: the connection is closed in its place.
    LosesReplies,
    /// Every piece arrives so much later.
    Slow(Duration),
}

/// A proxy on a free loopback port. Its connections end when it is dropped.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
}

#[derive(Debug)]
struct State {
    network: Network,
    /// Both ends of every connection, to close them by.
    connections: Vec<TcpStream>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Requests,
    Replies,
}

impl TcpProxy {
    /// A proxy to this address.
    ///
    /// # Errors
    /// No free port.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let state = Mutex::new(State { network: Network::Up, connections: Vec::new() });
        let shared = Arc::new(Shared { target, state, changed: Condvar::new(), ended: AtomicBool::new(false) });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                // A service that is not there closes the connection, as it would without a proxy.
                let _ = accepting.connect(client);
            }
        });
        Ok(Self { address, shared })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what becomes of the bytes, those under way included.
    pub fn set(&self, network: Network) {
        let mut state = self.shared.state();
        state.network = network;
        if network == Network::Down {
            close(&mut state.connections);
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        close(&mut self.shared.state().connections);
        self.shared.changed.notify_all();
        // Wakes the thread that accepts, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        if self.state().network == Network::Down {
            return client.shutdown(Shutdown::Both);
        }
        let server = TcpStream::connect(self.target)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        self.state().connections.extend([client.try_clone()?, server.try_clone()?]);
        for (direction, from, to) in
            [(Direction::Requests, client.try_clone()?, server.try_clone()?), (Direction::Replies, server, client)]
        {
            let shared = Arc::clone(self);
            thread::spawn(move || {
                // Whichever way it ends, both ends learn of it.
                let _ = shared.forward(direction, &from, &to);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }

    fn forward(&self, direction: Direction, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 || !self.lets_pass(direction) {
                return Ok(());
            }
            to.write_all(&buffer[..read])?;
        }
    }

    /// Waits as long as the network does not let bytes through; `false` where it loses them.
    fn lets_pass(&self, direction: Direction) -> bool {
        let mut state = self.state();
        loop {
            if self.ended.load(Ordering::SeqCst) {
                return false;
            }
            match state.network {
                Network::Up => return true,
                Network::Down => return false,
                Network::LosesReplies => return direction == Direction::Requests,
                Network::Silent => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Network::Slow(delay) => {
                    drop(state);
                    thread::sleep(delay);
                    return true;
                }
            }
        }
    }
}

fn close(connections: &mut Vec<TcpStream>) {
    for connection in connections.drain(..) {
        // One that its other end has closed already cannot be closed again.
        let _ = connection.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that answers each byte with the next higher one, and counts.
    fn service() -> (SocketAddr, Arc<Mutex<usize>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let (address, served) = (listener.local_addr().expect("an address"), Arc::new(Mutex::new(0)));
        let counted = Arc::clone(&served);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let counted = Arc::clone(&counted);
                thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() {
                        *counted.lock().expect("lock") += 1;
                        if stream.write_all(&[byte[0] + 1]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        (address, served)
    }

    fn ask(stream: &mut TcpStream, byte: u8) -> io::Result<u8> {
        stream.write_all(&[byte])?;
        let mut reply = [0];
        stream.read_exact(&mut reply).map(|()| reply[0])
    }

    fn connect(proxy: &TcpProxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        stream
    }

    #[test]
    fn bytes_arrive_are_held_lost_or_late() {
        let (address, served) = service();
        let proxy = TcpProxy::start(address).expect("a proxy");
        let mut stream = connect(&proxy);
        assert_eq!(ask(&mut stream, 1).expect("a reply"), 2);

        proxy.set(Network::Silent);
        stream.write_all(&[5]).expect("taken");
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("set");
        assert!(stream.read(&mut [0]).is_err(), "nothing arrives");
        proxy.set(Network::Slow(Duration::from_millis(1)));
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        let mut reply = [0];
        stream.read_exact(&mut reply).expect("arrives late");
        assert_eq!(reply, [6]);

        proxy.set(Network::LosesReplies);
        let before = *served.lock().expect("lock");
        assert!(ask(&mut stream, 9).is_err(), "the reply is lost");
        assert_eq!(*served.lock().expect("lock"), before + 1, "the request was served");

        proxy.set(Network::Down);
        assert!(ask(&mut connect(&proxy), 1).is_err());
        proxy.set(Network::Up);
        assert_eq!(ask(&mut connect(&proxy), 7).expect("a reply"), 8);
    }
}
