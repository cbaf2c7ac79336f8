//! Alert rules: a pure state machine over readings and the journal's clock.

pub mod evaluator;
pub mod rule;
pub mod transition;

pub use evaluator::{Added, Evaluator, Remembered};
pub use rule::{Rule, Severity};
pub use transition::{Action, State, StateChange, Transition, Who};
