//! Tells the courier, the publisher of twins and the driver of jobs that there may be something to do, before they look by themselves.

use std::sync::Arc;

use tokio::sync::Notify;

/// Clones ring the same one. Rings that are not heard yet are one.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Notify>);

/// One for each who looks.
#[derive(Clone, Debug, Default)]
pub struct Bells {
    pub commands: Bell,
    pub twins: Bell,
    pub jobs: Bell,
}

impl Bells {
    /// Rings all of them.
    pub fn ring(&self) {
        self.commands.ring();
        self.twins.ring();
        self.jobs.ring();
    }
}

impl Bell {
    /// From any thread.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Pending until it is rung.
    pub(crate) async fn rung(&self) {
        self.0.notified().await;
    }
}
