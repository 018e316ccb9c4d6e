//! No socket is opened that nobody asked for, and no message has a secret.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::server::{Reply, Request, Server};
use super::{Hub, MODEL, Machine, NAME, answered, opened};

/// Says on standard error when a socket is opened.
const PRELOADED: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
int socket(int domain, int type, int protocol) {
    ssize_t said = write(2, "SOCKET\n", 7);
    (void)said;
    int (*real)(int, int, int) = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");
    return real(domain, type, protocol);
}
"#;

/// Compiles [`PRELOADED`], or returns `None` if that cannot be done here.
fn preloaded(folder: &Path) -> Option<PathBuf> {
    let (source, library) = (folder.join("socket.c"), folder.join("libsocket.so"));
    std::fs::write(&source, PRELOADED).unwrap();
    let compiler = std::env::var_os("CC").unwrap_or("cc".into());
    let mut compile = Command::new(compiler);
    compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    let compiled = cfg!(target_os = "linux") && compile.status().is_ok_and(|status| status.success());
    compiled.then_some(library)
}

#[test]
fn sockets_are_opened_only_to_download() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = preloaded(folder.path()) else {
        println!("SKIPPED: no C compiler for Linux");
        return;
    };
    let hub = Hub::start();
    let machine = Machine::new(&hub.hub.address).with("LD_PRELOAD", library.to_str().unwrap());
    let sockets = |machine: &Machine, place: &str| {
        let (said, stderr) = answered(machine.start(place));
        (said, stderr.matches("SOCKET").count())
    };
    // A folder, whatever the environment says.
    assert_eq!(sockets(&machine, MODEL.path().to_str().unwrap()), (opened(), 0));
    let (said, count) = sockets(&machine, NAME);
    assert_eq!(said, opened());
    assert!(count > 0, "a download is not noticed");
    // Files in the cache, and files that are known to be missing.
    assert_eq!(sockets(&machine, NAME), (opened(), 0));
    let machine = machine.with("HF_HUB_OFFLINE", "1");
    assert_eq!(sockets(&machine, NAME), (opened(), 0));
    let (said, count) = sockets(&machine, "owner/another");
    assert!(said.contains("HF_HUB_OFFLINE is set, and owner/another is not in the cache") && count == 0, "{said}");
}

#[test]
fn no_message_has_a_secret() {
    const SECRET: &str = "hf_secret";
    let check = |address: &str, place: &str| {
        for endpoint in [address.to_string(), address.replacen("://", &format!("://name:{SECRET}@"), 1)] {
            let machine = Machine::new(&endpoint).with("HF_TOKEN", SECRET).with("RUST_LOG", "trace");
            let (said, stderr) = answered(machine.start(place));
            assert!(!said.contains(SECRET) && !stderr.contains(SECRET), "{said}\n{stderr}");
        }
    };
    let hub = Hub::start();
    for place in [NAME, "owner/another", "owner/tiny-bert@v9"] {
        check(&hub.hub.address, place);
    }
    for (status, code) in [(401, "GatedRepo"), (403, ""), (404, "RepoNotFound"), (418, ""), (429, ""), (503, "")] {
        let refuse = move |_: &Request, _| Reply::new(status, "").header("X-Error-Code", code);
        check(&Hub::with(refuse, |reply| reply).hub.address, NAME);
    }
    check(&Hub::with(|_, reply| reply, |reply| reply.cut(1000)).hub.address, NAME);
    check(&Hub::with(|_, reply| reply.header("X-Repo-Commit", "none"), |reply| reply).hub.address, NAME);
    check("http://127.0.0.1:9", NAME);
    check("ftp://127.0.0.1", NAME);
    let around = Server::start(|request| Reply::new(302, "").header("Location", request.path.clone()));
    check(&around.address, NAME);
}
