//! Places where the fault campaign makes tidegate die, wait or break a promise. A release build has none of it.
//!
//! | variable | effect |
//! | --- | --- |
//! | `TIDEGATE_CRASH_AT=name[:nth]` | abort, without destructors, when the point is passed for the nth time (else the first) |
//! | `TIDEGATE_PAUSE_AT=name:millis` | wait there each time, as a slow disk makes it |
//! | `TIDEGATE_MUTATION=name` | break a promise on purpose, so that the campaign can be seen to fail |

/// The names of the points, in the order in which a message passes them.
pub const POINTS: [&str; 14] = [
    "journal.before_commit",
    "journal.after_commit",
    "session.after_puback",
    "writer.before_commit",
    "writer.after_commit",
    "journal.before_trim",
    "journal.after_trim",
    "courier.marked",
    "courier.answered",
    "courier.recorded",
    "twins.due",
    "twins.answered",
    "twins.noted",
    "jobs.advanced",
];

/// A promise that can be broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// `ack-before-fsync`: messages are acknowledged before the journal has them.
    AckBeforeFsync,
    /// `position-outside-transaction`: the position is committed before the rows, in a transaction of its own.
    PositionOutsideTransaction,
    /// `redelivery-stored`: what a broker sends again because its acknowledgement was lost is taken for a new message.
    RedeliveryStored,
}

#[cfg(debug_assertions)]
pub use armed::{has, point};

/// Passes a point. Free of cost in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// Whether this process breaks the promise. Never in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn has(_mutation: Mutation) -> bool {
    false
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::{Mutation, POINTS};

    /// Read once, from the environment; no other state of the process is global.
    struct Armed {
        crash: Option<(String, u64)>,
        pause: Option<(String, u64)>,
        mutation: Option<Mutation>,
        passed: AtomicU64,
    }

    fn armed() -> &'static Armed {
        static ARMED: OnceLock<Armed> = OnceLock::new();
        ARMED.get_or_init(|| Armed {
            crash: place("TIDEGATE_CRASH_AT"),
            pause: place("TIDEGATE_PAUSE_AT"),
            mutation: mutation(),
            passed: AtomicU64::new(0),
        })
    }

    /// Passes a point: aborts or waits there if the environment says so.
    pub fn point(name: &'static str) {
        let armed = armed();
        if let Some((at, millis)) = &armed.pause
            && at == name
        {
            std::thread::sleep(Duration::from_millis(*millis));
        }
        if let Some((at, nth)) = &armed.crash
            && at == name
            && armed.passed.fetch_add(1, Ordering::Relaxed).saturating_add(1) == *nth
        {
            std::process::abort();
        }
    }

    /// Whether this process breaks the promise.
    pub fn has(mutation: Mutation) -> bool {
        armed().mutation == Some(mutation)
    }

    fn place(variable: &'static str) -> Option<(String, u64)> {
        let text = std::env::var(variable).ok()?;
        let (name, number) = text.split_once(':').unwrap_or((&text, "1"));
        match number.parse() {
            Ok(number) if POINTS.contains(&name) => Some((name.to_owned(), number)),
            _ => unusable(variable, &text),
        }
    }

    fn mutation() -> Option<Mutation> {
        let text = std::env::var("TIDEGATE_MUTATION").ok()?;
        match text.as_str() {
            "ack-before-fsync" => Some(Mutation::AckBeforeFsync),
            "position-outside-transaction" => Some(Mutation::PositionOutsideTransaction),
            "redelivery-stored" => Some(Mutation::RedeliveryStored),
            _ => unusable("TIDEGATE_MUTATION", &text),
        }
    }

    /// A misspelt fault would be a test that passes for nothing.
    fn unusable<T>(variable: &'static str, text: &str) -> T {
        tracing::error!(variable, text, "names no crash point, count or mutation");
        std::process::abort()
    }
}
