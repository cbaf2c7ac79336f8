//! Schedules and maintenance in the time zones of the devices that they concern.

use std::cell::Cell;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::fleet::NEVER;
use crate::alert::maintenance::Maintenance;
use crate::alert::times::Times;

/// Position of a time zone among those of the sites; 0 is UTC.
pub(super) type ZoneNo = u16;

/// Times in each of the zones, or in the one that they name themselves.
#[derive(Debug)]
pub(super) struct Gates(Vec<Gate>);

/// Times in one zone.
#[derive(Debug)]
struct Gate {
    times: Arc<Times>,
    zone: TimeZone,
    /// From then on never.
    end: i64,
    /// The stretch that was looked at last: from, until, and whether it is within. Calendars are slow, and the next question is mostly of
    /// the same hours.
    last: Cell<(i64, i64, bool)>,
}

impl Gates {
    pub fn new(times: &Times, own: Option<&TimeZone>, zones: &[TimeZone], end: i64) -> Gates {
        let times = Arc::new(times.clone());
        let zones = own.map_or(zones, std::slice::from_ref);
        let gate = |zone: &TimeZone| Gate {
            times: Arc::clone(&times),
            zone: zone.clone(),
            end,
            last: Cell::new((NEVER, NEVER, false)),
        };
        Gates(zones.iter().map(gate).collect())
    }

    /// Whether it is so at an instant for a device of this zone, and until when that surely stays.
    pub fn at(&self, zone: ZoneNo, at: i64) -> (bool, i64) {
        let gate = self.0.get(usize::from(zone)).or(self.0.first());
        gate.map_or((false, NEVER), |gate| gate.at(at))
    }
}

impl Gate {
    fn at(&self, at: i64) -> (bool, i64) {
        if at >= self.end {
            return (false, NEVER);
        }
        let (from, until, within) = self.last.get();
        if from <= at && at < until {
            return (within, until);
        }
        let (within, until) = self.times.at(&self.zone, at);
        let until = if within { until.min(self.end) } else { until };
        self.last.set((at, until, within));
        (within, until)
    }
}

/// Maintenance, ready to be asked.
#[derive(Debug)]
pub(super) struct Window {
    pub maintenance: Arc<Maintenance>,
    pub gates: Gates,
}

impl Window {
    pub fn new(maintenance: &Arc<Maintenance>, zones: &[TimeZone]) -> Window {
        let end = maintenance.ended_at.map_or(NEVER, |at| at.0);
        let gates = Gates::new(&maintenance.times, maintenance.zone.as_ref(), zones, end);
        Window { maintenance: Arc::clone(maintenance), gates }
    }
}
