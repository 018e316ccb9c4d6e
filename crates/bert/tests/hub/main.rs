//! Models by name, downloaded from a hub on the loopback address. Each is opened in a process of its own, because what
//! says where the hub and the cache are is the environment.

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use cloze_bert::{BertConfig, BertForMaskedLM, PreTrainedModel, Result, Tokenizer, TrainOptions};
use cloze_tensor::{Device, Module};
use server::{COMMIT, Reply, Repository, Request, Server, etag};
use tempfile::{TempDir, tempdir};

const NAME: &str = "owner/tiny-bert";

/// Marks the line of a process that says how opening went.
const ANSWER: &str = "ANSWER ";

/// A model's folder, as it is on the hub.
static MODEL: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempdir().unwrap();
    let text = ["the cat sat on the mat", "it slept", "the dog ran home"];
    let tokenizer = Tokenizer::train(text, 40, &TrainOptions::new()).unwrap();
    let config = BertConfig {
        hidden_size: 16,
        num_attention_heads: 2,
        intermediate_size: 32,
        ..BertConfig::tiny(tokenizer.vocab_size())
    };
    BertForMaskedLM::new(&config, &Device::Cpu, 7).unwrap().save(folder.path()).unwrap();
    tokenizer.save(folder.path()).unwrap();
    // Of the files that are looked for, one that is not there.
    fs::remove_file(folder.path().join("special_tokens_map.json")).unwrap();
    folder
});

fn file(name: &str) -> Vec<u8> {
    fs::read(MODEL.path().join(name)).unwrap()
}

/// Opens tokenizer and model, and says what is in them.
fn open(place: &Path) -> Result<String> {
    let tokenizer = Tokenizer::open(place)?;
    let (model, report) = BertForMaskedLM::open(place, &Device::Cpu)?;
    let mut sum = 0.0;
    for (_, parameter) in model.named_parameters() {
        sum += parameter.to_vec::<f32>()?.iter().map(|x| f64::from(*x).abs()).sum::<f64>();
    }
    Ok(format!("opened {} tokens, {} parameters of sum {sum}", tokenizer.vocab_size(), report.loaded))
}

#[test]
#[ignore = "what the other tests run in processes of their own"]
fn process() {
    let Some(place) = std::env::var_os("CLOZE_TEST_OPEN") else { return };
    println!("\n{ANSWER}{}", open(Path::new(&place)).unwrap_or_else(|error| error.to_string()));
}

/// A machine: what is in its cache, and the hub that it knows.
struct Machine {
    home: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Machine {
    fn new(endpoint: &str) -> Machine {
        let home = tempdir().unwrap();
        let hf_home = home.path().join("hf").to_str().unwrap().to_string();
        Machine { home, variables: vec![("HF_ENDPOINT", endpoint.to_string()), ("HF_HOME", hf_home)] }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Machine {
        self.variables.retain(|(other, _)| *other != name);
        self.variables.push((name, value.into()));
        self
    }

    fn start(&self, place: &str) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process", "--ignored", "--nocapture"]);
        for name in std::env::vars_os().map(|(name, _)| name) {
            if name.to_string_lossy().to_uppercase().contains("PROXY") || name.to_string_lossy().starts_with("HF_") {
                command.env_remove(name);
            }
        }
        command.env_remove("HUGGINGFACE_HUB_CACHE").env_remove("XDG_CACHE_HOME").env("HOME", self.home.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).env("CLOZE_TEST_OPEN", place);
        command.current_dir(self.home.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn open(&self, place: &str) -> String {
        answer(self.start(place))
    }

    fn repository(&self) -> PathBuf {
        self.home.path().join("hf/hub/models--owner--tiny-bert")
    }

    /// All files and links below the folder of the repository, by their paths within.
    fn cached(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.repository()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(self.repository()).unwrap().to_str().unwrap().to_string());
                }
            }
        }
        found.sort();
        found
    }
}

fn answer(process: Child) -> String {
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find_map(|line| line.strip_prefix(ANSWER));
    line.unwrap_or_else(|| panic!("no answer: {said}{stderr}")).to_string()
}

/// A hub with the model, and the host of its large files.
struct Hub {
    hub: Server,
    store: Server,
}

impl Hub {
    fn start() -> Hub {
        Hub::with(|_, reply| reply, |reply| reply)
    }

    /// One whose replies, and those of the host of large files, are bent.
    fn with(
        bend: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
        bend_store: impl Fn(Reply) -> Reply + Send + Sync + 'static,
    ) -> Hub {
        let repository = Repository::of(NAME, MODEL.path());
        let large = repository.clone();
        let store = Server::start(move |request| {
            let file = request.path[1..].split('?').next().unwrap();
            bend_store(large.content(file))
        });
        let address = store.address.clone();
        let hub = Server::start(move |request| bend(request, repository.reply(request, &address)));
        Hub { hub, store }
    }

    /// Paths of what was asked, of both.
    fn asked(&self) -> Vec<String> {
        self.hub.asked().into_iter().chain(self.store.asked()).map(|request| request.path).collect()
    }
}

fn opened() -> String {
    open(MODEL.path()).unwrap()
}

#[test]
fn downloads_once_into_the_cache_of_transformers() {
    let hub = Hub::start();
    let machine = Machine::new(&hub.hub.address);
    assert_eq!(machine.open(NAME), opened());
    assert!(hub.asked().iter().any(|path| path.starts_with("/model.safetensors?")));

    let weights = format!("blobs/{}", etag(&file("model.safetensors")));
    let cached = machine.cached();
    assert!(
        cached.contains(&weights) && cached.contains(&format!("snapshots/{COMMIT}/model.safetensors")),
        "{cached:?}"
    );
    assert!(cached.iter().all(|path| !path.ends_with(".tmp")), "{cached:?}");
    assert_eq!(fs::read_to_string(machine.repository().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(fs::read(machine.repository().join(&weights)).unwrap(), file("model.safetensors"));
    #[cfg(unix)]
    {
        let link = machine.repository().join("snapshots").join(COMMIT).join("model.safetensors");
        assert_eq!(fs::read_link(link).unwrap().to_str(), Some(format!("../../{weights}").as_str()));
    }

    // Neither what is there nor what is known not to be there is asked for again, by other processes either.
    assert_eq!(machine.open(NAME), opened());
    assert_eq!(hub.asked(), [""; 0]);
    // Another revision of the same content: its name is asked for, its bytes are not.
    assert_eq!(machine.open(&format!("{NAME}@{COMMIT}")), opened());
    assert_eq!(hub.asked(), [""; 0]);
    assert_eq!(machine.open(&format!("{NAME}@refs/pr/3")), opened());
    assert!(hub.asked().iter().all(|path| path.contains("refs%2Fpr%2F3")));
}

#[test]
fn optional_files_that_are_missing_are_noted() {
    let hub = Hub::start();
    let machine = Machine::new(&hub.hub.address);
    assert_eq!(machine.open(NAME), opened());
    let asked = hub.asked().iter().filter(|path| path.contains("special_tokens_map.json")).count();
    assert_eq!(asked, 1);
    assert!(machine.cached().contains(&format!(".no_exist/{COMMIT}/special_tokens_map.json")));
}

#[test]
fn all_files_are_of_one_commit() {
    // The first is asked for by the revision's name, the others by the commit that it stood for.
    let hub = Hub::start();
    assert_eq!(Machine::new(&hub.hub.address).open(NAME), opened());
    let asked: Vec<String> = hub.asked().into_iter().filter(|path| path.contains("/resolve/")).collect();
    assert!(asked[0].contains("/resolve/main/"), "{asked:?}");
    assert!(
        asked.len() > 2 && asked[1..].iter().all(|path| path.contains(&format!("/resolve/{COMMIT}/"))),
        "{asked:?}"
    );
}

#[test]
fn offline_opens_what_is_cached_and_nothing_else() {
    let hub = Hub::start();
    let machine = Machine::new(&hub.hub.address);
    assert_eq!(machine.open(NAME), opened());
    hub.asked();
    let machine = machine.with("HF_HUB_OFFLINE", "1").with("HF_ENDPOINT", "http://127.0.0.1:9");
    assert_eq!(machine.open(NAME), opened());
    let said = machine.open("owner/other");
    assert!(
        said.starts_with("owner/other: cannot download: no such folder; HF_HUB_OFFLINE is set, and owner/other is not"),
        "{said}"
    );

    fs::remove_file(machine.repository().join("snapshots").join(COMMIT).join("config.json")).unwrap();
    let said = machine.open(NAME);
    assert!(said.ends_with("config.json: cannot read: not in the cache, and HF_HUB_OFFLINE is set"), "{said}");
    assert!(hub.asked().is_empty());
}

/// As another program leaves it: files in the place of links, and nothing said of what is missing.
#[test]
fn opens_what_others_have_cached() {
    let machine = Machine::new("http://127.0.0.1:9").with("HF_HUB_OFFLINE", "TRUE");
    let snapshot = machine.repository().join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(machine.repository().join("refs")).unwrap();
    fs::write(machine.repository().join("refs/main"), COMMIT).unwrap();
    for name in ["config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json"] {
        fs::write(snapshot.join(name), file(name)).unwrap();
    }
    assert_eq!(machine.open(NAME), opened());
}

#[test]
fn the_cache_is_where_the_environment_says() {
    let hub = Hub::start();
    for (variables, place) in [
        (&[("HF_HOME", "")][..], ".cache/huggingface/hub"),
        (&[("HF_HOME", ""), ("XDG_CACHE_HOME", "~/xdg")], "xdg/huggingface/hub"),
        (&[("HF_HOME", "~/hf-home")], "hf-home/hub"),
        (&[("HUGGINGFACE_HUB_CACHE", "~/old")], "old"),
        (&[("HUGGINGFACE_HUB_CACHE", "~/old"), ("HF_HUB_CACHE", "~/new")], "new"),
    ] {
        let machine =
            variables.iter().fold(Machine::new(&hub.hub.address), |machine, (name, value)| machine.with(name, *value));
        assert_eq!(machine.open(NAME), opened());
        assert!(machine.home.path().join(place).join("models--owner--tiny-bert/refs/main").is_file(), "{variables:?}");
    }
}

#[test]
fn the_token_goes_to_the_endpoint_alone() {
    let hub = Hub::start();
    let machine = Machine::new(&hub.hub.address).with("HF_TOKEN", "hf_secret");
    assert_eq!(machine.open(NAME), opened());
    let authorization = |request: &Request| request.headers.get("authorization").cloned();
    let (asked, stored) = (hub.hub.asked(), hub.store.asked());
    assert!(asked.iter().any(|request| request.path.starts_with("/api/resolve-cache")));
    assert!(asked.iter().all(|request| authorization(request).as_deref() == Some("Bearer hf_secret")), "{asked:?}");
    assert!(!stored.is_empty() && stored.iter().all(|request| authorization(request).is_none()), "{stored:?}");

    // The one that `hf auth login` stored.
    let machine = Machine::new(&hub.hub.address);
    fs::create_dir(machine.home.path().join("hf")).unwrap();
    fs::write(machine.home.path().join("hf/token"), "hf_stored\n").unwrap();
    assert_eq!(machine.open(NAME), opened());
    assert!(hub.hub.asked().iter().all(|request| authorization(request).as_deref() == Some("Bearer hf_stored")));

    hub.asked();
    let said = Machine::new(&hub.hub.address).with("HF_TOKEN", "hf\r\nX-Evil: 1").open(NAME);
    assert!(said.contains("the token has characters that none has: see HF_TOKEN"), "{said}");
    assert!(hub.asked().is_empty());
}

#[test]
fn what_the_hub_refuses_is_said() {
    let refusing = |status, code: &'static str| {
        let refuse = move |_: &Request, _| match code {
            "" => Reply::new(status, ""),
            code => Reply::new(status, "").header("X-Error-Code", code),
        };
        Hub::with(refuse, |reply| reply).hub
    };
    let hub = Hub::start().hub;
    let said = Machine::new(&hub.address).open("owner/tiny-brt");
    let expected =
        format!("owner/tiny-brt: cannot download: no such folder, and {} has no owner/tiny-brt", hub.address);
    assert!(said.starts_with(&expected), "{said}");
    assert!(
        said.contains("(401): check the name") && said.contains("HF_TOKEN, which is not set, must have access"),
        "{said}"
    );
    let said = Machine::new(&hub.address).with("HF_TOKEN", "t").open("owner/tiny-brt");
    assert!(said.ends_with("the token in use must have access"), "{said}");
    let said = Machine::new(&hub.address).open(&format!("{NAME}@v9"));
    assert!(
        said.contains("@v9: cannot download: ") && said.contains("has no revision v9 of owner/tiny-bert (404)"),
        "{said}"
    );
    for (status, code, expected) in [
        (404, "RepoNotFound", "(404): check the name"),
        (401, "", "(401): check the name"),
        (401, "GatedRepo", "gives owner/tiny-bert to those who accepted its conditions: do so at"),
        (403, "GatedRepo", "/owner/tiny-bert; HF_TOKEN, which is not set, must be theirs (403)"),
        (403, "", "refuses owner/tiny-bert: HF_TOKEN, which is not set, must have access (403)"),
        (429, "", "has had too many requests: try again later (429)"),
        (503, "", "is in trouble: try again later (503)"),
        (418, "", "refuses (418)"),
    ] {
        let said = Machine::new(&refusing(status, code).address).open(NAME);
        assert!(said.starts_with("owner/tiny-bert: cannot download: ") && said.contains(expected), "{said}");
    }
    // A mirror that says no more than 404.
    let said = Machine::new(&refusing(404, "").address).open(NAME);
    assert!(said.contains("has neither"), "{said}");
}

#[test]
fn no_network_is_said_with_what_to_do() {
    // A port that nobody listens on: bound, and let go.
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
        assert!(said.contains("see HF_ENDPOINT"), "{said}");
    }
    // Nobody is asked for what is in the cache.
    let hub = Hub::start();
    let machine = Machine::new(&hub.hub.address);
    assert_eq!(machine.open(NAME), opened());
    assert_eq!(machine.with("HF_ENDPOINT", endpoint).open(NAME), opened());
}

/// That nothing of the weights was kept, and that they are downloaded by the next process.
fn assert_recovers(machine: Machine) {
    let cached = machine.cached();
    let weights =
        |path: &&String| path.contains("model.safetensors") || path.contains(&etag(&file("model.safetensors")));
    assert_eq!(cached.iter().find(weights), None, "{cached:?}");
    let hub = Hub::start();
    assert_eq!(machine.with("HF_ENDPOINT", hub.hub.address).open(NAME), opened());
}

#[test]
fn half_a_download_is_none() {
    let size = file("model.safetensors").len();
    let hub = Hub::with(|_, reply| reply, |reply| reply.cut(1000));
    let machine = Machine::new(&hub.hub.address);
    let said = machine.open(NAME);
    assert!(said.contains(&format!("the download of model.safetensors ended after 1000 of {size} bytes")), "{said}");
    assert!(said.ends_with(": try again"), "{said}");
    assert_recovers(machine);

    // A short body that claims to be whole is found by the size that the hub said.
    let hub = Hub::with(|_, reply| reply, Reply::shorter);
    let machine = Machine::new(&hub.hub.address);
    let said = machine.open(NAME);
    assert!(said.contains(&format!("ended after {} of {size} bytes: try again", size - 1)), "{said}");
    assert_recovers(machine);

    let hub = Hub::with(|_, reply| reply, Reply::longer);
    let machine = Machine::new(&hub.hub.address);
    let said = machine.open(NAME);
    assert!(said.contains(&format!("model.safetensors has more than the {size} bytes")), "{said}");
    assert_recovers(machine);
}

#[test]
fn a_silent_server_is_left() {
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
fn a_process_that_is_killed_leaves_nothing_that_counts() {
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
    let offline = Machine { home: machine.home, variables: machine.variables.clone() }.with("HF_HUB_OFFLINE", "1");
    let said = offline.open(NAME);
    assert!(said.contains("model.safetensors"), "{said}");
    let hub = Hub::start();
    let machine = Machine { home: offline.home, variables: machine.variables }.with("HF_ENDPOINT", &*hub.hub.address);
    assert_eq!(machine.open(NAME), opened());
}

#[test]
fn processes_at_the_same_time() {
    let slow = |reply| {
        std::thread::sleep(Duration::from_millis(300));
        reply
    };
    let hub = Hub::with(|_, reply| reply, slow);
    let machine = Machine::new(&hub.hub.address);
    let processes: Vec<Child> = (0..4).map(|_| machine.start(NAME)).collect();
    for process in processes {
        assert_eq!(answer(process), opened());
    }
    // One downloads, the others wait for it.
    assert_eq!(hub.store.asked().len(), 1);
}

#[test]
fn what_a_hub_says_does_not_lead_out_of_the_cache() {
    let outside = "../../../../outside";
    for (name, value, expected) in [
        ("X-Repo-Commit", outside, "says no commit (X-Repo-Commit)"),
        ("X-Repo-Commit", "main", "says no commit (X-Repo-Commit)"),
        ("X-Linked-Etag", outside, "says no name of the content (ETag)"),
        ("X-Linked-Etag", "\"/etc/x\"", "says no name of the content (ETag)"),
        ("Location", "file:///etc/passwd", "redirects to no address"),
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
    // A page that a network puts in the place of every answer.
    let page = Server::start(|_| Reply::new(200, "<html>log in</html>"));
    let said = Machine::new(&page.address).open(NAME);
    assert!(said.contains("says no commit (X-Repo-Commit), as a Hugging Face hub would"), "{said}");
    let around = Server::start(|request| Reply::new(302, "").header("Location", request.path.clone()));
    let said = Machine::new(&around.address).open(NAME);
    assert!(said.contains("redirects without end"), "{said}");
}
