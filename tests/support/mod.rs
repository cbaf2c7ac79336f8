//! Starts the private, throw-away servers that the tests run against.

pub mod certificates;
pub mod daemon;
pub mod device;
pub mod executor;
#[cfg(feature = "embedded-broker")]
pub mod embedded;
pub mod fake_broker;
pub mod load;
pub mod mosquitto;
pub mod pgbouncer;
pub mod postgres;
pub mod stranger;
pub mod proxy;
pub mod scene;
pub mod sparkplug;
pub mod websocket_front;

/// A port that nobody has, below those that outgoing connections take: a server that is killed finds it free again.
pub fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..32_000);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
