//! Models by name, downloaded from a hub on the loopback address. Each is opened in a separate process, because the
//! environment says where the hub and the cache are.

mod cached;
#[cfg(unix)]
mod faults;
mod network;
mod refused;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use cloze_bert::{
    BertConfig, BertForMaskedLM, OpenOptions, PreTrainedModel, Result, SentenceEncoder, SentencePooling, Tokenizer,
    TrainOptions,
};
use cloze_tensor::{Device, Module};
use server::{Reply, Repository, Request, Server};
use tempfile::{TempDir, tempdir};

const NAME: &str = "owner/tiny-bert";

/// Marks the line in which a process reports the result.
const ANSWER: &str = "ANSWER ";

/// The model folder that the hub serves.
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
    // The settings of its pooling are in a subfolder.
    let encoder = SentenceEncoder::new(&config, &Device::Cpu, 7).unwrap();
    let poolings = [SentencePooling::Cls, SentencePooling::Max];
    encoder.pooled_by(&poolings).unwrap().save(folder.path()).unwrap();
    BertForMaskedLM::new(&config, &Device::Cpu, 7).unwrap().save(folder.path()).unwrap();
    tokenizer.save(folder.path()).unwrap();
    // An optional file that is missing.
    fs::remove_file(folder.path().join("special_tokens_map.json")).unwrap();
    folder
});

fn file(name: &str) -> Vec<u8> {
    fs::read(MODEL.path().join(name)).unwrap()
}

/// Opens a tokenizer and two models, and returns a summary of them.
fn open(place: &Path) -> Result<String> {
    let tokenizer = Tokenizer::open(place)?;
    let (model, report) = BertForMaskedLM::open_reported(place, &Device::Cpu, &OpenOptions::new())?;
    let mut sum = 0.0;
    for (_, parameter) in model.named_parameters() {
        sum += parameter.to_vec::<f32>()?.iter().map(|x| f64::from(*x).abs()).sum::<f64>();
    }
    let encoder = SentenceEncoder::open(place, &Device::Cpu)?;
    let (tokens, parameters, dimension) = (tokenizer.vocab_size(), report.loaded, encoder.dimension());
    Ok(format!("opened {tokens} tokens, {parameters} parameters of sum {sum}, vectors of {dimension}"))
}

#[test]
#[ignore = "run by the other tests in a separate process"]
fn process() {
    let Some(place) = std::env::var_os("CLOZE_TEST_OPEN") else { return };
    println!("\n{ANSWER}{}", open(Path::new(&place)).unwrap_or_else(|error| error.to_string()));
}

/// A machine with a cache and the environment variables of a hub.
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
        without_proxy(&mut command, self.home.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).env("CLOZE_TEST_OPEN", place);
        command.current_dir(self.home.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn open(&self, place: &str) -> String {
        answer(self.start(place))
    }

    fn repository(&self) -> PathBuf {
        self.home.path().join("hf/hub/models--owner--tiny-bert")
    }

    /// Returns the relative paths of all files and links below the folder of the repository.
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

/// Removes from the environment of a command what would lead it to another hub or cache.
fn without_proxy<'c>(command: &'c mut Command, home: &Path) -> &'c mut Command {
    for name in std::env::vars_os().map(|(name, _)| name) {
        if name.to_string_lossy().to_uppercase().contains("PROXY") || name.to_string_lossy().starts_with("HF_") {
            command.env_remove(name);
        }
    }
    command.env_remove("HUGGINGFACE_HUB_CACHE").env_remove("XDG_CACHE_HOME").env("HOME", home)
}

fn answer(process: Child) -> String {
    answered(process).0
}

/// Returns the answer of a process, and what it printed on standard error.
fn answered(process: Child) -> (String, String) {
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().find_map(|line| line.strip_prefix(ANSWER));
    (line.unwrap_or_else(|| panic!("no answer: {said}{stderr}")).to_string(), stderr)
}

/// A hub with the model, and the server that stores its large files.
struct Hub {
    hub: Server,
    store: Server,
}

impl Hub {
    fn start() -> Hub {
        Hub::with(|_, reply| reply, |reply| reply)
    }

    /// Starts a hub whose replies, and those of the store, are changed by `bend` and `bend_store`.
    fn with(
        bend: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
        bend_store: impl Fn(Reply) -> Reply + Send + Sync + 'static,
    ) -> Hub {
        Hub::of(Repository::of(NAME, MODEL.path()), bend, bend_store)
    }

    fn of(
        repository: Repository,
        bend: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
        bend_store: impl Fn(Reply) -> Reply + Send + Sync + 'static,
    ) -> Hub {
        let large = repository.clone();
        let store = Server::start(move |request| {
            let file = request.path[1..].split('?').next().unwrap();
            bend_store(large.content(file))
        });
        let address = store.address.clone();
        let hub = Server::start(move |request| bend(request, repository.reply(request, &address)));
        Hub { hub, store }
    }

    /// Returns the paths of all requests to both servers.
    fn asked(&self) -> Vec<String> {
        self.hub.asked().into_iter().chain(self.store.asked()).map(|request| request.path).collect()
    }
}

fn opened() -> String {
    open(MODEL.path()).unwrap()
}
