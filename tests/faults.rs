//! The fault campaign: what was acknowledged is stored once, whatever fails and whenever.

mod ledger;
mod wire;
