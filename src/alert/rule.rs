//! An alert rule as it is evaluated: read from a file or a row, and found sound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::times::Times;

/// Most conditions in one rule, those within `any`, `all` and `not` among them.
pub const MAX_CONDITIONS: usize = 32;

/// How bad it is; later ones are worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    /// As rules, tables and messages have it.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }

    /// What [`Severity::word`] gives.
    pub fn of_word(word: &str) -> Option<Severity> {
        [Severity::Info, Severity::Warning, Severity::Critical].into_iter().find(|severity| severity.word() == word)
    }
}

/// A condition over readings, kept for each device in its scope, or for each group of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique over the installation.
    pub slug: Arc<str>,
    /// For people.
    pub name: String,
    /// The tenant whose devices it looks at; none: every tenant's.
    pub tenant: Option<String>,
    pub severity: Severity,
    pub scope: Scope,
    /// What begins an episode.
    pub when: Condition,
    /// What ends it; none: that `when` does not hold any more.
    pub clear: Option<Condition>,
    /// Severities that the episode has while these hold; the worst counts.
    pub raise: Vec<Raise>,
    /// An episode lasts so long at least.
    pub min_firing: Duration,
    pub resolve: Resolve,
    /// After an episode no other begins for so long.
    pub cooldown: Duration,
    /// With placeholders such as `{device}`, `{value}`, `{threshold}`, `{unit}`; none: a text made from the condition.
    pub message: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// What to do about it, for people.
    pub runbook: Option<String>,
    /// Name of the `[[escalation]]` that its alerts take; none: the first that is for them.
    pub escalation: Option<String>,
    /// When it is in force; none: always.
    pub schedule: Option<Schedule>,
    /// While an alert of one of these is active, none of this rule begins.
    pub depends_on: Vec<Dependency>,
    /// When it changes so often that it is said once; none: never.
    pub flapping: Option<Flapping>,
    /// The devices that have one alert together; none: each has its own.
    pub group: Option<Group>,
}

/// Devices that have one alert of a rule together.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub by: By,
    pub enough: Enough,
}

/// What the devices of a group have in common, beside their tenant. A device that has no such thing belongs to no group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    Site,
    Template,
    /// The gateway that they are directly behind.
    Parent,
    /// What a tag of this name says.
    Tag(String),
    /// That the rule looks at them.
    All,
}

/// On how many of a group's devices the condition must hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Enough {
    /// 1 to [`Enough::MOST`].
    Devices(u32),
    /// Of all that are in the group, above 0 and up to 1.
    Share(f64),
}

impl Enough {
    pub const MOST: u32 = 1_000_000;

    /// How many that is in a group of so many; one at least.
    pub fn of(self, members: u32) -> u32 {
        match self {
            Enough::Devices(least) => least.max(1),
            Enough::Share(share) => {
                // Three tenths of ten are three, though as floating point they are a little more. A float that fits no u32 becomes its end.
                let least = (share * f64::from(members) - 1e-6).ceil();
                (least as u32).max(1)
            }
        }
    }
}

/// When a rule is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub times: Times,
    /// Whose local times they are; none: that of the device's site, or else UTC.
    pub zone: Option<TimeZone>,
}

/// Another rule whose alert makes one of this rule needless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Slug.
    pub rule: Arc<str>,
    pub on: DependsOn,
    /// For so long after its end it counts still.
    pub grace: Duration,
}

/// Whose alert it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DependsOn {
    /// The device's own.
    Device,
    /// Its gateway's, or that of a gateway further up.
    Gateway,
}

/// More than `changes` between firing and resolved, `within` so long, is flapping; without a change for `calm` it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flapping {
    /// 2 to [`Flapping::MOST_CHANGES`].
    pub changes: usize,
    pub within: Duration,
    pub calm: Duration,
}

impl Flapping {
    pub const MOST_CHANGES: usize = 100;
}

/// How an episode ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// When it clears.
    Auto,
    /// Only when somebody says so.
    Manual,
}

/// Another severity while a condition holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Raise {
    pub severity: Severity,
    pub when: Condition,
}

/// The devices that a rule looks at: those that all of `of` choose, and none of `except`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Empty: every device.
    pub of: Vec<Selector>,
    pub except: Vec<Selector>,
}

/// A choice of devices; within one list any of the values will do.
#[derive(Clone, Debug, PartialEq)]
pub enum Selector {
    /// Uids; `*` and `?` stand for any characters, and for one.
    Device(Vec<String>),
    /// Slugs.
    Template(Vec<String>),
    /// Names.
    Site(Vec<String>),
    /// All of these tags.
    Tags(BTreeMap<String, String>),
}

/// A test, and for how long it must have held on end, by the readings' own times. Zero: at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub test: Test,
    pub hold: Duration,
}

/// What can be true of a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Something about the readings of one metric.
    Metric {
        metric: Arc<str>,
        check: Check,
    },
    /// Nothing came for so long: of the metric, or of the device as a whole.
    Absent {
        metric: Option<Arc<str>>,
        after: Duration,
    },
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
}

/// What is asked of a metric's readings.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// Of the newest number.
    Number(Compare),
    /// Of the newest text: whether it is one of these, or, with `not`, none of them.
    Text { any: Vec<String>, not: bool },
    /// Whether `least` of the last `of` numbers compare so. 1 ≤ `least` ≤ `of` ≤ [`Check::MOST_SAMPLES`].
    Samples { is: Compare, least: usize, of: usize },
    /// An aggregate of the numbers of the last `over`.
    Window { over: Duration, aggregate: Aggregate, is: Compare },
    /// How much the number changes in `per`, worked out over that time. Of a counter a fall is a reset and adds nothing.
    Rate { per: Duration, counter: bool, is: Compare },
    /// The number has not changed for so long, though readings came.
    Stuck { over: Duration },
    /// The number is so many standard deviations from what is usual.
    Anomaly { deviations: f64, season: Season },
    /// The device is inside, or outside, of an area; `metric` is its latitude in degrees.
    Geofence { longitude: Arc<str>, area: Area, inside: bool },
    /// The newest number against another metric's newest: `metric - other` compares so.
    Difference { other: Arc<str>, is: Compare },
}

impl Check {
    /// Samples that a rule may look back on.
    pub const MOST_SAMPLES: usize = 64;
    /// Readings that a window keeps of one sensor; the oldest give way, and the rule goes on with the rest.
    pub const MOST_IN_WINDOW: usize = 4096;
}

/// A comparison with constants. Ranges include their bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Compare {
    Gt(f64),
    Lt(f64),
    Gte(f64),
    Lte(f64),
    Eq(f64),
    Ne(f64),
    Inside(f64, f64),
    Outside(f64, f64),
}

impl Compare {
    pub fn holds(self, value: f64) -> bool {
        match self {
            Compare::Gt(bound) => value > bound,
            Compare::Lt(bound) => value < bound,
            Compare::Gte(bound) => value >= bound,
            Compare::Lte(bound) => value <= bound,
            Compare::Eq(bound) => value == bound,
            Compare::Ne(bound) => value != bound,
            Compare::Inside(low, high) => (low..=high).contains(&value),
            Compare::Outside(low, high) => value < low || value > high,
        }
    }

    /// The constant that `value` is nearest to passing.
    pub fn threshold(self, value: f64) -> f64 {
        match self {
            Compare::Gt(bound)
            | Compare::Lt(bound)
            | Compare::Gte(bound)
            | Compare::Lte(bound)
            | Compare::Eq(bound)
            | Compare::Ne(bound) => bound,
            Compare::Inside(low, high) | Compare::Outside(low, high) => {
                if (value - low).abs() <= (value - high).abs() {
                    low
                } else {
                    high
                }
            }
        }
    }
}

/// Of the numbers in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    Avg,
    Min,
    Max,
    Sum,
    Count,
    /// Of the sample: divided by one less than their number.
    Stddev,
    /// The 95th percentile, between readings by straight line.
    P95,
}

/// What is usual depends on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Season {
    None,
    /// The hour of the week, UTC.
    HourOfWeek,
}

/// A part of the Earth's surface, in degrees of WGS 84.
#[derive(Clone, Debug, PartialEq)]
pub enum Area {
    /// Around (latitude, longitude), with a radius in metres.
    Circle { centre: (f64, f64), radius: f64 },
    /// Its corners as (latitude, longitude), at least three; it does not cross the 180th meridian.
    Polygon(Vec<(f64, f64)>),
}
