//! Ends a run on Ctrl-C, at the shutdown of the system, or when a batch system or a launcher asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::SigId;
#[cfg(unix)]
use signal_hook::consts::SIGUSR1;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::{Error, Result};

/// `mpirun` forwards SIGUSR1 to all ranks, but kills them soon after it gets one of the others.
const SIGNALS: &[std::ffi::c_int] = &[
    SIGINT,
    SIGTERM,
    #[cfg(unix)]
    SIGUSR1,
];

/// The exit status of a program ended by Ctrl-C, by the convention of shells.
const INTERRUPTED: i32 = 130;

/// Handles [`SIGNALS`] as long as it lives: the first signal sets a flag, the second one ends the process.
pub(super) struct Signals {
    asked: Arc<AtomicBool>,
    registered: Vec<SigId>,
}

impl Signals {
    /// Installs the handlers if `wanted`.
    pub(super) fn watch(wanted: bool) -> Result<Signals> {
        let mut signals = Signals { asked: Arc::new(AtomicBool::new(false)), registered: Vec::new() };
        if wanted {
            for &signal in SIGNALS {
                let asked = || signals.asked.clone();
                // The order matters: at the first signal, the shutdown handler must see the flag still unset.
                let ids = flag::register_conditional_shutdown(signal, INTERRUPTED, asked())
                    .and_then(|first| Ok([first, flag::register(signal, asked())?]));
                let ids = ids.map_err(|error| Error::data("signals", format!("cannot install a handler: {error}")))?;
                signals.registered.extend(ids);
            }
        }
        Ok(signals)
    }

    /// Returns whether a signal arrived.
    pub(super) fn arrived(&self) -> bool {
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
