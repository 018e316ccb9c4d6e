//! Downloading into the cache and reading from it.

use std::fs;
use std::process::Child;
use std::time::Duration;

use cloze_bert::{BertForMaskedLM, PreTrainedModel, SaveOptions};
use cloze_tensor::Device;

use super::server::{COMMIT, Repository, etag};
use super::{Hub, MODEL, Machine, NAME, answer, file, opened};

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
        let link = machine.repository().join("snapshots").join(COMMIT).join("1_Pooling/config.json");
        assert!(fs::read_link(link).unwrap().starts_with("../../../blobs"));
    }

    // Another process requests neither cached files nor those known to be missing.
    assert_eq!(machine.open(NAME), opened());
    assert_eq!(hub.asked(), [""; 0]);
    // For another revision with the same content, only the headers are requested.
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
    // The first file is requested by the name of the revision, the others by its commit.
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
    assert!(
        said.ends_with("config.json: cannot read: no such file; HF_HUB_OFFLINE is set, so nothing is downloaded"),
        "{said}"
    );
    assert!(hub.asked().is_empty());
}

/// As in `huggingface_hub` 2.4: `HF_HUB_OFFLINE`, if it is set, takes precedence.
#[test]
fn transformers_offline_counts_too() {
    let hub = Hub::start();
    let with = |variables: &[(&'static str, &str)]| {
        let machine = Machine::new(&hub.hub.address);
        variables.iter().fold(machine, |machine, (name, value)| machine.with(name, *value)).open(NAME)
    };
    for value in ["1", "on", "Yes", "TRUE"] {
        let said = with(&[("TRANSFORMERS_OFFLINE", value), ("HF_HUB_OFFLINE", "")]);
        assert!(said.contains("no such folder; TRANSFORMERS_OFFLINE is set, and"), "{said}");
    }
    assert!(hub.asked().is_empty());
    assert_eq!(with(&[("TRANSFORMERS_OFFLINE", "1"), ("HF_HUB_OFFLINE", "0")]), opened());
    assert_eq!(with(&[("TRANSFORMERS_OFFLINE", "0")]), opened());
}

/// Other programs may store files instead of links, and do not record missing files.
#[test]
fn opens_what_others_have_cached() {
    let machine = Machine::new("http://127.0.0.1:9").with("HF_HUB_OFFLINE", "TRUE");
    let snapshot = machine.repository().join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(machine.repository().join("refs")).unwrap();
    fs::write(machine.repository().join("refs/main"), COMMIT).unwrap();
    fs::create_dir(snapshot.join("1_Pooling")).unwrap();
    for name in ["config.json", "model.safetensors", "vocab.txt", "modules.json", "1_Pooling/config.json"] {
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
fn concurrent_processes_download_once() {
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
    // One process downloads, the others wait for it.
    assert_eq!(hub.store.asked().len(), 1);
}

#[test]
fn weights_in_several_files_are_downloaded() {
    let folder = tempfile::tempdir().unwrap();
    let model = BertForMaskedLM::open(MODEL.path(), &Device::Cpu).unwrap();
    model.save_with(folder.path(), &SaveOptions::new().max_shard_bytes(20_000)).unwrap();
    let mut repository = Repository::of(NAME, MODEL.path());
    repository.files.remove("model.safetensors");
    repository.files.extend(Repository::of(NAME, folder.path()).files);

    let hub = Hub::of(repository.clone(), |_, reply| reply, |reply| reply);
    let machine = Machine::new(&hub.hub.address);
    assert_eq!(machine.open(NAME), opened());
    let shards = hub.asked().iter().filter(|path| path.contains("?Signature=")).count();
    assert!(shards > 1 && shards == machine.cached().iter().filter(|path| path.contains("-of-")).count());
    assert_eq!(machine.open(NAME), opened());
    assert!(hub.asked().is_empty());

    let lost = repository.files.keys().find(|name| name.starts_with("model-00002")).unwrap().clone();
    repository.files.remove(&lost);
    let hub = Hub::of(repository, |_, reply| reply, |reply| reply);
    let said = Machine::new(&hub.hub.address).open(NAME);
    assert!(
        said.starts_with(&format!("{NAME}/{lost}: cannot read: ")) && said.contains("no such file at http://"),
        "{said}"
    );
}
