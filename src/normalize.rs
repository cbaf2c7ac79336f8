//! Samples → readings, or refusals with a reason. Pure: no I/O, no clock.
