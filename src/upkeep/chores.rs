//! Which chores there are.

use super::checkpoint::CheckpointLog;
use super::compression::Compression;
use super::partitions::Partitions;
use super::retention::Retention;
use super::rollups::Rollups;
use super::status::DeviceStatus;
use super::{Chore, Figures, SqliteCare};
use crate::archive::Archive;
use crate::config::{Config, DatabaseUrl};
use crate::metrics::Metrics;

/// What upkeep does, the urgent first.
pub fn chores(config: &Config, metrics: &Metrics) -> Vec<Box<dyn Chore>> {
    let archive = config.archive.dir.clone().map(Archive::new);
    let mut chores: Vec<Box<dyn Chore>> = vec![
        Box::new(Partitions::new(config.time.max_future)),
        Box::new(Rollups::new(config.rollups.clone(), config.retention.raw, metrics.clone())),
        Box::new(Retention::new(&config.retention, archive, config.rollups.enabled, metrics.clone())),
    ];
    chores.push(Box::new(DeviceStatus::new(metrics.clone())));
    if matches!(config.database.url, DatabaseUrl::Sqlite(_)) {
        chores.push(Box::new(CheckpointLog::new(metrics.clone())));
    }
    if let Some(after) = config.retention.compress_after {
        chores.push(Box::new(Compression::new(after, metrics.clone())));
    }
    chores.extend(Figures::new(config, metrics.clone()).map(|chore| Box::new(chore) as Box<dyn Chore>));
    chores.extend(SqliteCare::new(config, metrics.clone()).map(|chore| Box::new(chore) as Box<dyn Chore>));
    chores
}
