//! The fault campaign: what was acknowledged is stored once, whatever fails and whenever.

mod ledger;
mod wire;

mod clocks;
mod instances;
mod journal_faults;
mod rare_brokers;
