//! What was heard of twins, into their rows, in the transaction of the batch that it came with.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Device, Devices, Hand, of_device, put_up, row};
use crate::store::batch::Batch;
use crate::store::error::StoreError;
use crate::store::limits;
use crate::store::pool::Conn;
use crate::twin::answer::{self, Note};
use crate::twin::state::{Change, Twin, Update};
use crate::twin::{Answer, Ask, Reason, Refused, Want};

/// What became of what was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Changes of what is desired, and of what is reported.
    pub desired: u64,
    pub reported: u64,
    /// In the order of [`Reason::ALL`].
    pub refused: [u64; Reason::ALL.len()],
    /// How long it took devices to be what they are to be.
    pub convergences: Vec<Duration>,
    /// Answers and news for which there was no room.
    pub left_out: u64,
}

impl Kept {
    fn refuse(&mut self, reason: Reason, times: u64) {
        let at = Reason::ALL.iter().position(|known| *known == reason);
        if let Some(count) = at.and_then(|at| self.refused.get_mut(at)) {
            *count = count.saturating_add(times);
        }
    }
}

/// Does what was asked, in order; a twin's row is written once.
pub(in crate::store) fn keep(conn: &mut Conn<'_>, instance: &str, batch: &Batch) -> Result<Kept, StoreError> {
    let mut kept = Kept::default();
    if batch.twins.is_empty() {
        return Ok(kept);
    }
    let uids: BTreeSet<&str> = batch.twins.iter().filter(|ask| is_possible(ask)).map(|ask| &*ask.device).collect();
    let uids: Vec<&str> = uids.into_iter().collect();
    let devices = Devices::load(conn, &uids)?;
    let found = |ask: &Ask| devices.find(ask.tenant.as_deref(), &ask.device).map(|device| device.id).ok();
    let ids: BTreeSet<i32> = batch.twins.iter().filter_map(found).collect();
    let mut hand = row::take(conn, &ids)?;
    let mut notes = Vec::new();
    for ask in &batch.twins {
        notes.append(&mut one(&devices, &mut hand, instance, ask, &mut kept));
    }
    row::put_back(conn, &hand)?;
    kept.left_out = put_up(conn, Some(instance), notes)?;
    if kept.left_out > 0 {
        tracing::warn!(
            left_out = kept.left_out,
            most = super::MAX_MESSAGES,
            "answers and news of twins that wait for the broker are at their bound, or have no topic; these are left out"
        );
    }
    Ok(kept)
}

/// PostgreSQL takes no text with a NUL.
fn is_possible(ask: &Ask) -> bool {
    !ask.device.contains('\0') && !ask.tenant.as_deref().is_some_and(|tenant| tenant.contains('\0'))
}

/// Does what one asks; returns what is to be told on topics of others' making.
fn one(devices: &Devices, hand: &mut Hand, instance: &str, ask: &Ask, kept: &mut Kept) -> Vec<Note> {
    let device = match &ask.want {
        Want::Nothing(refused) => Err(refused.clone()),
        _ => devices.find(ask.tenant.as_deref(), &ask.device),
    };
    let outcome = device.and_then(|device| done(device, hand, instance, ask, kept).map(|done| (device, done)));
    let update = if let Want::Update(update) = &ask.want { Some(update) } else { None };
    match outcome {
        Ok((device, Done { before, after, mut news })) => {
            let mut notes = answer::notes(ask, update, &before, Ok(&after), &device.tenant);
            notes.append(&mut news);
            notes
        }
        Err(refused) => {
            kept.refuse(refused.reason, 1);
            let (device, reason) = (limits::clip(&ask.device, limits::UID), refused.reason.word());
            tracing::warn!(device, reason, why = refused.message, "what is asked of a twin is not done");
            answer::notes(ask, update, &Twin::default(), Err(&refused), ask.tenant.as_deref().unwrap_or_default())
        }
    }
}

struct Done {
    before: Twin,
    after: Twin,
    news: Vec<Note>,
}

fn done(device: &Device, hand: &mut Hand, instance: &str, ask: &Ask, kept: &mut Kept) -> Result<Done, Refused> {
    let is_shadow = matches!(ask.answer, Answer::Shadow { .. });
    let held = of_device(hand, device, &ask.name)?;
    let before = held.twin.clone();
    let changed = match &ask.want {
        Want::Nothing(refused) => return Err(refused.clone()),
        Want::Get if is_shadow && !before.exists => {
            let detail =
                format!("No shadow exists with name: {}", if ask.name.is_empty() { &ask.device } else { &ask.name });
            return Err(Refused::new(Reason::NoTwin, detail));
        }
        Want::Get => Default::default(),
        Want::Tell => {
            held.tell(true, true, ask.at);
            Default::default()
        }
        Want::Update(update) => {
            wants_no_retired(device, update)?;
            held.twin.update(update, ask.at, ask.limits)?
        }
        Want::Delete(expected) => held.twin.delete(*expected)?,
        Want::Measure(measured) => {
            let (changed, too_large) = held.twin.measure(measured, ask.at, ask.limits);
            kept.refuse(Reason::TooLarge, too_large);
            changed
        }
    };
    // Of two daemons the one that hears the device speaks to it.
    let from_device =
        matches!(&ask.want, Want::Tell | Want::Measure(_)) || (is_shadow && changed.any()) || changed.reported;
    if from_device && held.instance.as_deref() != Some(instance) && (changed.any() || held.dirty) {
        held.instance = Some(instance.to_owned());
    }
    held.shadow |= is_shadow && changed.any();
    let by_update = !matches!(ask.want, Want::Measure(_));
    let news = held.note((device, &ask.name), &before, changed, (by_update, is_shadow), ask.at);
    kept.desired = kept.desired.saturating_add(u64::from(changed.desired));
    kept.reported = kept.reported.saturating_add(u64::from(changed.reported));
    kept.convergences.extend(changed.convergence);
    Ok(Done { before, after: held.twin.clone(), news })
}

/// Nobody is left to fulfil a wish.
pub(super) fn wants_no_retired(device: &Device, update: &Update) -> Result<(), Refused> {
    if device.retired && update.desired != Change::Keep {
        let uid = &device.uid;
        let detail =
            format!("the device {uid} is retired; `tidegate devices status {uid} --active` takes it into use again");
        return Err(Refused::new(Reason::Retired, detail));
    }
    Ok(())
}
