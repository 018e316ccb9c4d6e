//! Every call of a download that touches a file fails: see `tests/faults` of the workspace.

#[path = "../../../../tests/faults/library.rs"]
mod library;
#[path = "../../../../tests/faults/state.rs"]
mod state;
#[path = "../../../../tests/faults/sweep.rs"]
mod sweep;

use std::path::Path;
use std::process::Command;

use sweep::{Program, Sweep};

use super::{Hub, NAME, open, without_proxy};

#[test]
#[ignore = "run by the other tests in a separate process"]
fn process() {
    if std::env::var_os("CLOZE_FAULT_HOME").is_none() {
        return;
    }
    if let Err(error) = open(Path::new(NAME)) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

/// Opens models that are downloaded into an empty cache.
fn download(hub: &Hub) -> Program {
    let address = hub.hub.address.clone();
    let command = move |folder: &Path| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "faults::process", "--ignored", "--nocapture"]).env("CLOZE_FAULT_HOME", folder);
        without_proxy(&mut command, folder).env("HF_ENDPOINT", &address).env("HF_HOME", folder.join("hf"));
        command.env("RAYON_NUM_THREADS", "1");
        command
    };
    Program {
        name: "download",
        prepare: Box::new(|_| Ok(())),
        command: Box::new(command),
        damage: |_| None,
        // Locks, and the record of files that a repository does not have.
        saves_work: |path| path.contains("/.locks") || path.contains("/.no_exist"),
    }
}

/// Lets the download meet the faults that `choose` returns.
fn sweep(choose: impl Fn(&Sweep) -> Vec<(usize, library::Way)>, threads: usize) {
    let Some(library) = sweep::library() else { return };
    let hub = Hub::start();
    let program = download(&hub);
    let sweep = Sweep::new(&program, &library).unwrap();
    let tally = sweep.run(&choose(&sweep), threads);
    println!("{}: {tally}", program.name);
    assert!(tally.lost.is_empty(), "{}", tally.lost.join("\n"));
}

#[test]
fn some_calls_of_a_download_fail() {
    sweep(|all| all.sample(40), 1);
}

#[test]
#[ignore = "takes a few minutes"]
fn every_call_of_a_download_fails_in_every_way() {
    sweep(|all| all.faults(), 2);
}
