//! Alert rules: a pure state machine over readings and the journal's clock.

pub mod rule;
pub mod transition;

pub use rule::{Rule, Severity};
pub use transition::{Action, State, StateChange, Transition, Who};
