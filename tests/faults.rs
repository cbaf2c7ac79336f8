//! The fault campaign: what was acknowledged is stored once, whatever fails and whenever.
//!
//! Every scenario is load on a [`rig`], a fault, and a [`ledger`] held against the database at the end.

mod ledger;
mod rig;
mod tap;
mod wire;

mod broker;
mod campaign;
#[cfg(debug_assertions)]
mod commands;
mod database;
#[cfg(debug_assertions)]
mod mutations;
mod poison;
mod process;
mod clocks;
mod instances;
#[cfg(debug_assertions)]
mod jobs;
mod journal_faults;
#[cfg(debug_assertions)]
mod overload;
mod rare_brokers;
mod read_only_disk;
mod twins;
