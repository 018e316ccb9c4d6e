//! Ending a run when it is asked for: by Ctrl-C, or by a system that shuts down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::{Error, Result};

/// The status with which a shell says that Ctrl-C ended a program.
const INTERRUPTED: i32 = 130;

/// Watches for SIGINT and SIGTERM as long as it lives. The first is taken note of, the second ends the process at once.
pub(super) struct Signals {
    asked: Arc<AtomicBool>,
    registered: Vec<SigId>,
}

impl Signals {
    /// Watches, if that is `wanted`.
    pub(super) fn watch(wanted: bool) -> Result<Signals> {
        let mut signals = Signals { asked: Arc::new(AtomicBool::new(false)), registered: Vec::new() };
        if wanted {
            for signal in [SIGINT, SIGTERM] {
                let asked = || signals.asked.clone();
                // In this order: at the first signal the first of the two sees that none was before.
                let ids = flag::register_conditional_shutdown(signal, INTERRUPTED, asked())
                    .and_then(|first| Ok([first, flag::register(signal, asked())?]));
                let ids = ids.map_err(|error| Error::data("signals", format!("cannot be watched for: {error}")))?;
                signals.registered.extend(ids);
            }
        }
        Ok(signals)
    }

    /// Whether one came.
    pub(super) fn came(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
    }
}
