//! Without the feature `hub`, programs cannot reach a network: they have no function to do it with.

use std::process::Command;

use cloze_examples::{Result, program};

#[test]
fn programs_have_no_function_to_connect() -> Result {
    if cfg!(any(feature = "hub", feature = "mpi")) || !cfg!(target_os = "linux") {
        println!("SKIPPED: with the features hub and mpi programs connect, and only Linux lists functions so");
        return Ok(());
    }
    for example in
        ["finetune", "finetune_ner", "finetune_qa", "pretrain", "prepare_corpus", "embed", "fill_mask", "rerank"]
    {
        let Ok(listed) = Command::new("nm").args(["-D", "--undefined-only"]).arg(program(example)?).output() else {
            println!("SKIPPED: there is no nm");
            return Ok(());
        };
        let functions = String::from_utf8(listed.stdout)?;
        let name =
            |line: &str| line.split_whitespace().last().and_then(|name| name.split('@').next()).map(str::to_string);
        let functions: Vec<String> = functions.lines().filter_map(name).collect();
        assert!(functions.iter().any(|name| name == "write"), "{example}: nothing is listed");
        let connects =
            |name: &&String| ["socket", "connect", "bind", "listen", "getaddrinfo", "sendto"].contains(&name.as_str());
        let found: Vec<&String> = functions.iter().filter(connects).collect();
        assert!(found.is_empty(), "{example}: {found:?}");
    }
    Ok(())
}
