//! Failures of the hub and the network: the errors, and the state of the cache afterwards.

use std::fs;
use std::time::{Duration, Instant};

use super::server::{Reply, Request, Server, etag};
use super::{Hub, Machine, NAME, file, opened};

#[test]
fn the_token_only_goes_to_the_endpoint() {
    let hub = Hub::start();
    let machine = Machine::new(&hub.hub.address).with("HF_TOKEN", "hf_secret");
    assert_eq!(machine.open(NAME), opened());
    let authorization = |request: &Request| request.headers.get("authorization").cloned();
    let (asked, stored) = (hub.hub.asked(), hub.store.asked());
    assert!(asked.iter().any(|request| request.path.starts_with("/api/resolve-cache")));
    assert!(asked.iter().all(|request| authorization(request).as_deref() == Some("Bearer hf_secret")), "{asked:?}");
    assert!(!stored.is_empty() && stored.iter().all(|request| authorization(request).is_none()), "{stored:?}");

    // The token that `hf auth login` stored.
    let machine = Machine::new(&hub.hub.address);
    fs::create_dir(machine.home.path().join("hf")).unwrap();
    fs::write(machine.home.path().join("hf/token"), "hf_stored\n").unwrap();
    assert_eq!(machine.open(NAME), opened());
    assert!(hub.hub.asked().iter().all(|request| authorization(request).as_deref() == Some("Bearer hf_stored")));

    hub.asked();
    let said = Machine::new(&hub.hub.address).with("HF_TOKEN", "hf\r\nX-Evil: 1").open(NAME);
    assert!(said.contains("the token has invalid characters: check HF_TOKEN"), "{said}");
    assert!(hub.asked().is_empty());
}

#[test]
fn refusals_of_the_hub_are_explained() {
    let refusing = |status, code: &'static str| {
        let refuse = move |_: &Request, _| match code {
            "" => Reply::new(status, ""),
            code => Reply::new(status, "").header("X-Error-Code", code),
        };
        Hub::with(refuse, |reply| reply).hub
    };
    let hub = Hub::start().hub;
    let said = Machine::new(&hub.address).open("owner/tiny-brt");
    let expected = format!(
        "owner/tiny-brt: cannot download: no such folder, and {} has no public repository owner/tiny-brt",
        hub.address
    );
    assert!(said.starts_with(&expected), "{said}");
    assert!(
        said.contains("(401): check the name") && said.contains("HF_TOKEN, which is not set, must have access"),
        "{said}"
    );
    let said = Machine::new(&hub.address).with("HF_TOKEN", "t").open("owner/tiny-brt");
    assert!(said.ends_with("the token must have access"), "{said}");
    let said = Machine::new(&hub.address).open(&format!("{NAME}@v9"));
    assert!(
        said.contains("@v9: cannot download: ") && said.contains("has no revision v9 of owner/tiny-bert (404)"),
        "{said}"
    );
    for (status, code, expected) in [
        (404, "RepoNotFound", "(404): check the name"),
        (401, "", "(401): check the name"),
        (401, "GatedRepo", "requires accepting the conditions of owner/tiny-bert: do so at"),
        (403, "GatedRepo", "/owner/tiny-bert; HF_TOKEN, which is not set, must belong to that account (403)"),
        (403, "", "refuses access to owner/tiny-bert: HF_TOKEN, which is not set, must have access (403)"),
        (429, "", "received too many requests: try again later (429)"),
        (503, "", "has an internal error: try again later (503)"),
        (418, "", "refuses the request (418)"),
    ] {
        let said = Machine::new(&refusing(status, code).address).open(NAME);
        assert!(said.starts_with("owner/tiny-bert: cannot download: ") && said.contains(expected), "{said}");
    }
    // A mirror that answers 404 without an error code.
    let said = Machine::new(&refusing(404, "").address).open(NAME);
    assert!(said.contains("has neither tokenizer.json nor vocab.txt at http://"), "{said}");
}

#[test]
fn an_unreachable_hub_is_explained() {
    // A port without a listener: it is bound and released.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let todo = "give a folder, or set HF_HUB_OFFLINE=1 if the model is in the cache";
    let said = Machine::new(&endpoint).open(NAME);
    assert!(
        said.starts_with(&format!("{NAME}: cannot download: no such folder, and {endpoint} cannot be reached")),
        "{said}"
    );
    assert!(said.contains("refused") && said.ends_with(todo), "{said}");
    let said = Machine::new("http://no-such-host.invalid").open(NAME);
    assert!(said.contains("http://no-such-host.invalid cannot be reached (") && said.ends_with(todo), "{said}");
    for endpoint in ["hub.example", "ftp://127.0.0.1", "http://", "http://a b"] {
        let said = Machine::new(endpoint).open(NAME);
        assert!(said.contains("check HF_ENDPOINT"), "{said}");
    }
    // Cached files are opened without a request.
    let hub = Hub::start();
    let machine = Machine::new(&hub.hub.address);
    assert_eq!(machine.open(NAME), opened());
    assert_eq!(machine.with("HF_ENDPOINT", endpoint).open(NAME), opened());
}

/// Asserts that no part of the weights was kept, and that the next process downloads them.
fn assert_recovers(machine: Machine) {
    let cached = machine.cached();
    let weights =
        |path: &&String| path.contains("model.safetensors") || path.contains(&etag(&file("model.safetensors")));
    assert_eq!(cached.iter().find(weights), None, "{cached:?}");
    let hub = Hub::start();
    assert_eq!(machine.with("HF_ENDPOINT", hub.hub.address).open(NAME), opened());
}

#[test]
fn an_incomplete_download_is_discarded() {
    let size = file("model.safetensors").len();
    let hub = Hub::with(|_, reply| reply, |reply| reply.cut(1000));
    let machine = Machine::new(&hub.hub.address);
    let said = machine.open(NAME);
    assert!(said.contains(&format!("the download of model.safetensors ended after 1000 of {size} bytes")), "{said}");
    assert!(said.ends_with(": try again"), "{said}");
    assert_recovers(machine);

    // A short body that claims to be complete is detected by the size in the hub's headers.
    let hub = Hub::with(|_, reply| reply, Reply::shorter);
    let machine = Machine::new(&hub.hub.address);
    let said = machine.open(NAME);
    assert!(said.contains(&format!("ended after {} of {size} bytes: try again", size - 1)), "{said}");
    assert_recovers(machine);

    let hub = Hub::with(|_, reply| reply, Reply::longer);
    let machine = Machine::new(&hub.hub.address);
    let said = machine.open(NAME);
    assert!(said.contains(&format!("model.safetensors has more than the announced {size} bytes")), "{said}");
    assert_recovers(machine);
}

#[test]
fn a_silent_server_times_out() {
    let hub = Hub::with(|_, reply| reply, |reply| reply.stall(1000));
    let machine = Machine::new(&hub.hub.address).with("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    let start = Instant::now();
    let said = machine.open(NAME);
    assert!(said.contains("model.safetensors ended after 1000 of"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_recovers(machine);

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let said = Machine::new(&endpoint).with("HF_HUB_DOWNLOAD_TIMEOUT", "1").open(NAME);
    assert!(said.contains("cannot be reached (no answer in 1 s)"), "{said}");
}

#[test]
fn a_killed_process_leaves_no_usable_file() {
    let hub = Hub::with(|_, reply| reply, |reply| reply.stall(1000));
    let machine = Machine::new(&hub.hub.address);
    let mut process = machine.start(NAME);
    let start = Instant::now();
    let weights = etag(&file("model.safetensors"));
    while !machine.cached().iter().any(|path| path.contains(&weights) && path.ends_with(".tmp")) {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    let machine = machine.with("HF_HUB_OFFLINE", "1");
    let said = machine.open(NAME);
    assert!(said.contains("has no weights: expected one of model.safetensors"), "{said}");
    assert!(said.ends_with("; HF_HUB_OFFLINE is set, so nothing is downloaded"), "{said}");
    let hub = Hub::start();
    assert_eq!(machine.with("HF_HUB_OFFLINE", "0").with("HF_ENDPOINT", &*hub.hub.address).open(NAME), opened());
}

#[test]
fn headers_cannot_lead_out_of_the_cache() {
    let outside = "../../../../outside";
    for (name, value, expected) in [
        ("X-Repo-Commit", outside, "sends no valid commit (X-Repo-Commit)"),
        ("X-Repo-Commit", "main", "sends no valid commit (X-Repo-Commit)"),
        ("X-Linked-Etag", outside, "sends no valid entity tag (ETag)"),
        ("X-Linked-Etag", "\"/etc/x\"", "sends no valid entity tag (ETag)"),
        ("Location", "file:///etc/passwd", "redirects to an invalid address"),
        ("X-Linked-Size", "many", ""),
    ] {
        let bend = move |_: &Request, reply: Reply| if reply.is(302) { reply.header(name, value) } else { reply };
        let hub = Hub::with(bend, |reply| reply);
        let machine = Machine::new(&hub.hub.address);
        let said = machine.open(NAME);
        match expected {
            "" => assert_eq!(said, opened()),
            expected => {
                assert!(said.contains(expected), "{said}");
                assert_recovers(machine);
            }
        }
    }
    // A network that answers every request with its login page.
    let page = Server::start(|_| Reply::new(200, "<html>log in</html>"));
    let said = Machine::new(&page.address).open(NAME);
    assert!(said.contains("sends no valid commit (X-Repo-Commit), so it is not a Hugging Face hub"), "{said}");
    let around = Server::start(|request| Reply::new(302, "").header("Location", request.path.clone()));
    let said = Machine::new(&around.address).open(NAME);
    assert!(said.contains("redirects too often"), "{said}");
}
