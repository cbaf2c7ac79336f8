//! Commands whose time passes: those that can't be sent any more, and those that nobody answers.

use std::time::Duration;

use diesel::prelude::*;

use super::{Changed, end, targets, write_steps};
use crate::command::State;
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::device_commands;
use crate::time::UtcMicros;

/// Commands looked at in one transaction.
const AT_ONCE: i64 = 500;
/// Before the second send of an idempotent command; doubled each time, up to a minute.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

#[derive(Queryable)]
struct Waiting {
    id: String,
    tenant: String,
    device: String,
    state: String,
    attempts: i32,
    attempts_max: i32,
    timeout_ms: i64,
    sent_at: Option<UtcMicros>,
    expires_at: Option<UtcMicros>,
}

impl Store {
    /// Ends commands of an instance that have expired or timed out, and has those sent again that may be. Returns how many have got into
    /// each state, and whether there may be more.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub fn time_commands(&self, instance: &str, now: UtcMicros) -> Result<(Vec<(State, u64)>, bool), StoreError> {
        let found = self.db.with(|conn| Ok((expired(conn, instance, now)?, unanswered(conn, instance, now)?)))?;
        if found.0.is_empty() && found.1.is_empty() {
            return Ok((Vec::new(), false));
        }
        self.db.write(|conn| {
            let (expired, unanswered) = (expired(conn, instance, now)?, unanswered(conn, instance, now)?);
            let more = expired.len() as i64 == AT_ONCE || unanswered.len() as i64 == AT_ONCE;
            let cause = "its time passed before it could be sent";
            let mut counts =
                vec![(State::Expired, end(conn, &expired, State::Expired, now, cause, None)?.len() as u64)];
            let devices = unanswered.iter().map(|one| (one.tenant.as_str(), one.device.as_str()));
            let targets = targets::load(conn, devices)?;
            for one in &unanswered {
                let last_seen =
                    targets.get(&(one.tenant.clone(), one.device.clone())).and_then(|target| target.last_seen);
                counts.extend(one.conclude(conn, last_seen, now)?.map(|state| (state, 1)));
            }
            Ok((counts, more))
        })
    }
}

impl Waiting {
    /// What becomes of a command that was not answered in time; the state that it gets into, if it does.
    fn conclude(
        &self,
        conn: &mut Conn<'_>,
        last_seen: Option<UtcMicros>,
        now: UtcMicros,
    ) -> Result<Option<State>, StoreError> {
        let timeout = Duration::from_millis(u64::try_from(self.timeout_ms).unwrap_or(0));
        let lives = self.expires_at.is_some_and(|expires| expires > now);
        let is_silent = match (last_seen, self.sent_at) {
            (Some(seen), Some(sent)) => seen < sent,
            _ => true,
        };
        let delivered = self.state == State::Delivered.word();
        if is_silent && lives && !delivered {
            // The broker may hold it for a device that is away, up to the same moment.
            let by = now.checked_add(timeout).min(self.expires_at).or(self.expires_at);
            with_db!(conn, |c| diesel::update(device_commands::table.find(&self.id))
                .filter(device_commands::ended_at.is_null())
                .set(device_commands::answer_by.eq(by))
                .execute(c))
            .during("waiting on for a command's answer")?;
            return Ok(None);
        }
        if !delivered && lives && self.attempts < self.attempts_max {
            self.send_again(conn, now)?;
            return Ok(Some(State::Queued));
        }
        let cause = match (delivered, is_silent) {
            (true, _) => format!("the device said that it was at it, and nothing more within {}", spell(timeout)),
            (false, true) => {
                "no answer, nor anything else of the device since it was sent, until it expired".to_owned()
            }
            (false, false) => {
                format!("no answer within {} of the last of {}", spell(timeout), sends(self.attempts))
            }
        };
        end(conn, std::slice::from_ref(&self.id), State::TimedOut, now, &cause, Some(&cause))?;
        Ok(Some(State::TimedOut))
    }

    fn send_again(&self, conn: &mut Conn<'_>, now: UtcMicros) -> Result<(), StoreError> {
        let doublings = u32::try_from(self.attempts.saturating_sub(1)).unwrap_or(0).min(16);
        let wait = RETRY.0.saturating_mul(1 << doublings).min(RETRY.1);
        let changed: Vec<Changed> = with_db!(conn, |c| diesel::update(device_commands::table.find(&self.id))
            .filter(device_commands::ended_at.is_null())
            .filter(device_commands::state.eq(State::Sent.word()))
            .set((
                device_commands::state.eq(State::Queued.word()),
                device_commands::due_at.eq(now.checked_add(wait)),
                device_commands::answer_by.eq(None::<UtcMicros>),
                device_commands::steps.eq(device_commands::steps + 1),
            ))
            .returning((device_commands::id, device_commands::steps, device_commands::reply_topic))
            .get_results(c))
        .during("having a command sent again")?;
        let cause = format!("no answer to {} of {}: it is sent again", sends(self.attempts), self.attempts_max);
        write_steps(conn, &changed, (State::Queued, false), now, &cause)
    }
}

fn sends(attempts: i32) -> String {
    if attempts == 1 { "1 send".to_owned() } else { format!("{attempts} sends") }
}

fn spell(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}

/// Those that are with the broker's connection are that's to tell.
fn expired(conn: &mut Conn<'_>, instance: &str, now: UtcMicros) -> Result<Vec<String>, StoreError> {
    with_db!(conn, |c| device_commands::table
        .filter(device_commands::instance.eq(instance))
        .filter(device_commands::ended_at.is_null())
        .filter(device_commands::admitted_at.is_not_null())
        .filter(device_commands::state.eq(State::Queued.word()))
        .filter(device_commands::sending.eq(false))
        .filter(device_commands::expires_at.le(now))
        .select(device_commands::id)
        .limit(AT_ONCE)
        .load(c))
    .during("looking for commands that have expired")
}

fn unanswered(conn: &mut Conn<'_>, instance: &str, now: UtcMicros) -> Result<Vec<Waiting>, StoreError> {
    use device_commands::{
        admitted_at, answer_by, attempts, attempts_max, device, ended_at, expires_at, id, sent_at, state, table,
        tenant, timeout_ms,
    };
    with_db!(conn, |c| table
        .filter(device_commands::instance.eq(instance))
        .filter(ended_at.is_null())
        .filter(admitted_at.is_not_null())
        .filter(answer_by.le(now))
        .select((id, tenant, device, state, attempts, attempts_max, timeout_ms, sent_at, expires_at))
        .limit(AT_ONCE)
        .load(c))
    .during("looking for commands that nobody answers")
}
