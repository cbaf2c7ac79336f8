//! Hears at once, on PostgreSQL, that somebody has put a command in, or changed a twin (LISTEN). Behind a pooler there is no session to listen with; then the
//! courier's look each second has to do, and that of the publisher of twins.

use std::time::Duration;

use diesel::prelude::*;
use tokio_util::sync::CancellationToken;

use crate::backoff::{self, Backoff};
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, connect_once};

/// How often the connection is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often the connection is asked whether it is still there.
const ALIVE: u32 = 600;
/// Between attempts at a connection.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Store {
    /// Whether somebody who puts a command in can be heard at once.
    pub fn tells_of_commands(&self) -> bool {
        !self.db.is_sqlite()
    }

    /// Calls `ring` whenever commands were put in or twins changed, until `stop`; takes a connection of its own. A failure is tried again: nothing
    /// depends on it but a second. `failed` is told of each.
    pub fn hear_commands(&self, stop: &CancellationToken, ring: impl Fn(), failed: impl Fn()) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        while !stop.is_cancelled() {
            if self.settings.pgbouncer || self.db.is_pooled() {
                backoff::pause(RETRY.1, stop);
                continue;
            }
            match connect_once(&self.settings, |conn| self.listen(conn, stop, &ring, &mut backoff)) {
                Ok(()) => {}
                Err(error) => {
                    failed();
                    let wait = backoff.next_delay();
                    tracing::debug!(%error, retry_in = ?wait, "can't listen for commands; they are looked for each second");
                    backoff::pause(wait, stop);
                }
            }
        }
    }

    /// Until `stop`, or a pooler is found.
    fn listen(
        &self,
        conn: &mut Conn<'_>,
        stop: &CancellationToken,
        ring: &impl Fn(),
        backoff: &mut Backoff,
    ) -> Result<(), StoreError> {
        let Conn::Postgres(c) = conn else { return Ok(()) };
        if self.db.is_pooled() {
            return Ok(());
        }
        for channel in ["LISTEN tidegate_commands", "LISTEN tidegate_twins"] {
            diesel::sql_query(channel).execute(*c).during("listening for commands")?;
        }
        backoff.reset();
        // What came before it listened.
        ring();
        let mut looks = 0_u32;
        while !stop.is_cancelled() {
            let mut heard = false;
            for notification in c.notifications_iter() {
                notification.during("listening for commands")?;
                heard = true;
            }
            if heard {
                ring();
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(ALIVE) {
                diesel::sql_query("SELECT 1").execute(*c).during("listening for commands")?;
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}
