//! Tells the courier that there may be something to do, before it looks by itself.

use std::sync::Arc;

use tokio::sync::Notify;

/// Clones ring the same one. Rings that are not heard yet are one.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Notify>);

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
