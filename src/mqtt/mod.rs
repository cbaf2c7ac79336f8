//! The MQTT connection: session, ack ledger, options. No rumqttc type leaves this room.
//!
//! Every connection gets an event loop of its own: nothing that one connection queued (events, acknowledgements,
//! publishes, packet ids, limits the broker set) can come out on the next.

pub mod host_state;
mod ledger;
mod listen;
mod live;
pub mod load;
mod loss;
mod options;
mod outbox;
mod parcel;
mod probe;
mod protocol;
pub mod session;
pub mod status;
mod subscriptions;
mod tls;
mod v4;
mod v5;
mod watchdog;

pub use ledger::Ledger;
pub use listen::{ListenError, listen};
pub use loss::Loss;
pub use options::OptionsError;
pub(crate) use parcel::PASSING;
pub use parcel::{Answer, Delivery, Parcel};
pub use probe::probe;
pub use session::{Link, RefusedFilter, SessionError, Settings, Timing};
pub use tls::TlsError;
pub(crate) use tls::client_config;
