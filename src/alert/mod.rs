//! Alert rules: a pure state machine over readings and the journal's clock.

pub mod advice;
pub mod announce;
pub mod announcer;
mod area_file;
mod check_file;
mod comparison_file;
mod condition_file;
mod contradiction;
pub(crate) mod dependency;
pub mod desk;
pub mod backtest;
pub mod evaluator;
mod group_file;
pub mod maintenance;
pub mod maintenance_file;
pub mod publisher;
pub mod request;
pub mod rule;
pub mod rule_file;
mod scope_file;
pub mod times;
pub mod times_file;
pub mod timeline;
pub mod transition;
pub mod watch;
#[cfg(test)]
mod fleet_day;

pub use evaluator::{Added, Evaluator, HeldBack, InGroup, Remembered, Standing, Stands, Withheld};
pub use rule::{Rule, Severity};
pub use transition::{Action, Holder, State, StateChange, Transition, Who};
