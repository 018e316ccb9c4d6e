//! The book, the README and CONTRIBUTING name only what exists: their links resolve, the files they name are there, and
//! the examples in their shell blocks take the options that are shown. (Their Rust blocks are doctests: see `src/lib.rs`.)

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page of the documentation with its text.
fn pages() -> Result<Vec<(PathBuf, String)>> {
    let mut files = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    let mut folders = vec![root().join("docs/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "md") => files.push(path),
                false => {}
            }
        }
    }
    files.into_iter().map(|file| Ok((file.clone(), fs::read_to_string(file)?))).collect()
}

/// The lines of a page that are outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// The targets of the links on a page that lead to other files of the repository, or to a heading.
fn links(text: &str) -> Vec<&str> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchor of a heading, as mdBook and GitHub make it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn links_resolve() -> Result {
    for (file, text) in pages()? {
        for target in links(&text) {
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let folder = file.parent().ok_or("a page is in a folder")?;
            let linked = if path.is_empty() { file.clone() } else { folder.join(path) };
            assert!(linked.exists(), "{}: {target} does not exist", file.display());
            if !fragment.is_empty() {
                let text = fs::read_to_string(linked)?;
                let mut anchors = prose(&text).filter_map(|line| line.strip_prefix('#'));
                let is_there = anchors.any(|heading| anchor(heading.trim_start_matches('#').trim()) == fragment);
                assert!(is_there, "{}: {target} has no such heading", file.display());
            }
        }
    }
    Ok(())
}

/// The inline code on a page that is the path of a file or folder: in the repository, or in the tensor crate.
fn paths(text: &str) -> Vec<PathBuf> {
    let code = prose(text).flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_path = |code: &&str| code.chars().all(|c| c.is_ascii_alphanumeric() || "/_.-".contains(c));
    let resolve = |code: &str| match code.split('/').next()? {
        "crates" | "tests" | "benches" | "examples" | "kernels" | "models" | "docs" | "src" => Some(root().join(code)),
        "cpu" | "ops" | "dispatch" | "cuda" | "cuda_ops" => Some(root().join("crates/tensor/src").join(code)),
        _ => None,
    };
    code.filter(is_path).filter(|code| code.contains('/')).filter_map(resolve).collect()
}

/// CONTRIBUTING is not checked, because it names files that a contributor adds.
#[test]
fn named_files_exist() -> Result {
    let mut checked = 0;
    for (file, text) in pages()?.into_iter().filter(|(file, _)| !file.ends_with("CONTRIBUTING.md")) {
        for path in paths(&text) {
            assert!(path.exists(), "{}: {} does not exist", file.display(), path.display());
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} paths found");
    Ok(())
}

/// The commands in the shell blocks of a page, continuation lines joined.
fn commands(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let joined = blocks.map(|block| block.replace("\\\n", " "));
    joined.flat_map(|block| block.lines().map(str::to_string).collect::<Vec<_>>()).collect()
}

/// The example that a command runs, with its arguments.
fn example_run(command: &str) -> Option<(&str, &str)> {
    let command = command.split(" # ").next()?;
    if let Some((_, rest)) = command.split_once("--example ") {
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        return (!command.contains("-p ")).then(|| (name, rest.split_once("-- ").map_or("", |(_, given)| given)));
    }
    let (name, arguments) = command.trim().split_once(' ')?;
    let sources = [format!("examples/{name}.rs"), format!("examples/{name}/main.rs")];
    sources.iter().any(|source| root().join(source).exists()).then_some((name, arguments))
}

/// The `--help` of an example, which `cargo test` builds beside the tests.
fn help(example: &str) -> Result<String> {
    let test = std::env::current_exe()?;
    let target = test.parent().and_then(Path::parent).ok_or("no target folder")?;
    let program = target.join("examples").join(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    let output = Command::new(&program).arg("--help").output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    assert!(output.status.success(), "{example} --help: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn shell_blocks_use_options_that_exist() -> Result {
    let mut helps = BTreeMap::new();
    let mut checked = 0;
    for (file, text) in pages()? {
        for command in commands(&text) {
            let Some((example, arguments)) = example_run(&command).filter(|(name, _)| *name != "NAME") else {
                continue;
            };
            if !helps.contains_key(example) {
                helps.insert(example.to_string(), help(example)?);
            }
            for option in arguments.split_whitespace().filter(|word| word.starts_with("--")) {
                let name = option.split('=').next().unwrap_or(option);
                let known = helps[example].split_whitespace().any(|word| word.trim_end_matches(',') == name);
                assert!(known, "{}: `{command}`: {example} has no option {name}", file.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "only {checked} options found");
    Ok(())
}
