//! A TCP link that a test can cut, black-hole, slow down and listen in on.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// Hears everything that is read: connection, way, bytes.
pub type Ear = Box<dyn FnMut(u64, Way, &[u8]) + Send>;

/// Listens on a free port and forwards to another, until dropped.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: u16,
    state: Mutex<State>,
    changed: Condvar,
    ear: Mutex<Option<Ear>>,
}

#[derive(Default)]
struct State {
    ended: bool,
    /// Connections before this one forward nothing more.
    stalled_before: u64,
    /// All connections are cut once so many more bytes have gone this way.
    fuse: Option<(Way, usize)>,
    next: u64,
    /// Number, client's and server's side.
    open: Vec<(u64, TcpStream, TcpStream)>,
    /// Cuts that a fuse has made.
    cuts: u64,
}

impl Proxy {
    pub fn start(target: u16) -> Proxy {
        Proxy::tapped(target, None)
    }

    pub fn tapped(target: u16, ear: Option<Ear>) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { target, state, changed: Condvar::new(), ear: Mutex::new(ear) });
        std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve(&listener)
        });
        Proxy { port, shared }
    }

    /// Ends every connection; new ones are let through.
    pub fn cut(&self) {
        self.shared.lock().cut();
        self.shared.changed.notify_all();
    }

    /// Cuts every connection once `bytes` more have gone one way, most likely in the middle of something.
    pub fn cut_after(&self, way: Way, bytes: usize) {
        self.shared.lock().fuse = Some((way, bytes));
    }

    /// How often [`cut_after`](Proxy::cut_after) has come true.
    pub fn cuts(&self) -> u64 {
        self.shared.lock().cuts
    }

    /// The connections there are stay up, and nothing moves on them any more; new ones work.
    pub fn black_hole(&self) {
        let mut state = self.shared.lock();
        state.stalled_before = state.next;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ended = true;
        state.cut();
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl State {
    fn cut(&mut self) {
        for (_, client, server) in self.open.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: &Arc<Shared>, listener: &TcpListener) {
        while let Ok((client, _)) = listener.accept() {
            if self.lock().ended {
                return;
            }
            let Ok(server) = TcpStream::connect(("127.0.0.1", self.target)) else { continue };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let mut state = self.lock();
            let number = state.next;
            state.next += 1;
            state.open.push((number, client.try_clone().unwrap(), server.try_clone().unwrap()));
            drop(state);
            for (from, to, way) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap(), Way::ToServer),
                (server.try_clone().unwrap(), client.try_clone().unwrap(), Way::ToClient),
            ] {
                let shared = Arc::clone(self);
                std::thread::spawn(move || shared.pump(number, way, from, to));
            }
        }
    }

    fn pump(&self, number: u64, way: Way, mut from: TcpStream, mut to: TcpStream) {
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut chunk) {
            if !self.may_pass(number) {
                break;
            }
            if let Some(ear) = self.ear.lock().unwrap().as_mut() {
                ear(number, way, &chunk[..read]);
            }
            let (allowed, cut) = self.burn(way, read);
            if to.write_all(&chunk[..allowed]).is_err() {
                break;
            }
            if cut {
                let mut state = self.lock();
                state.cuts += 1;
                state.cut();
                drop(state);
                self.changed.notify_all();
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        self.lock().open.retain(|(open, ..)| *open != number);
    }

    /// Waits while the connection is in a black hole. False: it was cut.
    fn may_pass(&self, number: u64) -> bool {
        let is_open = |state: &State| state.open.iter().any(|(open, ..)| *open == number);
        let state = self.lock();
        let state = self
            .changed
            .wait_while(state, |state| number < state.stalled_before && is_open(state) && !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        is_open(&state)
    }

    /// How much of `bytes` may still pass, and whether the connections end then.
    fn burn(&self, way: Way, bytes: usize) -> (usize, bool) {
        let mut state = self.lock();
        match state.fuse {
            Some((fused, left)) if fused == way && left <= bytes => {
                state.fuse = None;
                (left, true)
            }
            Some((fused, left)) if fused == way => {
                state.fuse = Some((fused, left - bytes));
                (bytes, false)
            }
            _ => (bytes, false),
        }
    }
}
