//! Jobs: one command for many devices, at a rate, canaries first, and no further than failures allow.
//!
//! Whoever asks ([`Ask`]) makes a row of `jobs` and one of `job_executions` for each device, each looked through before anything is sent.
//! The [`driver`] advances them: it makes commands of executions, as many as [`plan`] says, and reads from the commands' rows what has
//! become of them. The courier sends those like any other. A firmware campaign ([`firmware`]) is a job whose executions end with the
//! version that their devices report.

pub mod driver;
pub mod firmware;
pub mod measure;
pub mod plan;
pub mod request;
pub mod selector;
pub mod state;

pub use firmware::Firmware;
pub use measure::{Percent, Rate, Share};
pub use plan::{Abort, Counts, Move, Rules, Tally};
pub use selector::Selector;
pub use state::{ExecutionState, JobState};

use std::time::Duration;

use ring::digest;

use crate::time::UtcMicros;

/// Most devices of one job.
pub const MAX_DEVICES: usize = 100_000;
/// Most jobs that have not ended.
pub const MAX_OPEN: usize = 100;
/// Executions that must have ended before the share of failures counts, unless told.
pub const ABORT_AFTER: u32 = 10;
/// Share of failures that ends a job with canaries, unless told.
pub const CANARY_ABORT: Percent = Percent::new(20);
/// How long an execution may be in progress where the version that its device reports ends it, unless told.
pub const FIRMWARE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Most bytes of what a job says of its devices, as JSON.
const MAX_SELECTION: usize = 64 << 10;
/// Most bytes of a job's name.
pub const MAX_NAME: usize = super::command::MAX_ID;
/// How long an execution may be in progress, and how long a job may take.
pub const LONGEST: Duration = super::command::request::LONGEST;

/// What somebody wants many devices to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// 32 hexadecimal digits.
    pub id: String,
    pub tenant: String,
    /// Its tenant has no other job of this name.
    pub name: String,
    pub command: String,
    /// JSON; checked against the template of each device before anything is sent.
    pub params: String,
    pub selector: Selector,
    pub firmware: Option<Firmware>,
    pub rate: Option<Rate>,
    pub canary: Option<Share>,
    pub abort: Option<Percent>,
    pub abort_after: u32,
    /// How long an execution may be in progress; none: as long as its command.
    pub timeout: Option<Duration>,
    /// Nothing begins afterwards, and no command waits longer.
    pub expires_at: Option<UtcMicros>,
    pub priority: i32,
    pub at: UtcMicros,
    /// None: the first daemon that looks.
    pub instance: Option<String>,
    pub who: Option<String>,
    /// By which way: `cli`, `http`.
    pub via: &'static str,
}

impl Ask {
    /// What is wrong with it whatever the devices are, if anything.
    ///
    /// # Errors
    /// That, and where.
    pub fn check(&self) -> Result<(), String> {
        if !crate::command::is_id(&self.name) {
            return Err(format!("the name {:?} is not 1 to {MAX_NAME} of the characters A-Z a-z 0-9 _ . -", self.name));
        }
        let fits = |instance: &String| (1..=MAX_NAME).contains(&instance.len()) && !instance.contains('\0');
        if self.instance.as_ref().is_some_and(|instance| !fits(instance)) {
            return Err(format!("an instance's id has 1 to {MAX_NAME} bytes"));
        }
        if self.selector.json().to_string().len() > MAX_SELECTION {
            return Err(format!("the templates, sites and tags have more than {MAX_SELECTION} bytes"));
        }
        if self.abort_after == 0 {
            return Err("the failures of no executions can't be counted: the least is 1".to_owned());
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero() || timeout > LONGEST) {
            return Err("an execution may be in progress for 1ms to 366 days".to_owned());
        }
        match self.expires_at {
            Some(at) if at <= self.at => Err("its time has passed already".to_owned()),
            Some(at) if at.since(self.at) > LONGEST => Err("it expires more than 366 days from now".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The id of a job's command for a device: always the same, so that whoever makes it twice makes one.
pub fn command_id(job: &str, device: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(job.as_bytes());
    context.update(&[0]);
    context.update(device.as_bytes());
    context.finish().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_and_a_device_have_one_command() {
        let id = command_id("j", "d");
        assert!(id.len() == 32 && crate::command::is_id(&id));
        assert_eq!(id, command_id("j", "d"));
        assert_ne!(command_id("j1", "d"), command_id("j", "1d"));
    }
}
