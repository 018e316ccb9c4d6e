//! The names of repositories.

use std::path::Path;

/// Splits `place` into the name and the revision of a repository of the Hugging Face hub: `name` or `owner/name`,
/// optionally with `@revision` (a branch, tag or commit; `main` by default). Returns `None` if it is not a valid name.
pub(super) fn parse(place: &Path) -> Option<(&str, &str)> {
    let place = place.to_str()?;
    let (name, revision) = place.split_once('@').unwrap_or((place, "main"));
    let named = name.len() <= 96
        && name.split('/').count() <= 2
        && name.split('/').all(is_part)
        && !["--", ".."].iter().any(|forbidden| name.contains(forbidden))
        && !name.ends_with(".git");
    // A revision is also used as a path below `refs`.
    let revised = revision.split('/').all(is_part) && !revision.contains("..");
    (named && revised).then_some((name, revision))
}

fn is_part(part: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    part.starts_with(word) && part.ends_with(word) && part.chars().all(|c| word(c) || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        // These are the names that `validate_repo_id` of `huggingface_hub` accepts.
        for name in ["bert-base-uncased", "neuralmind/bert-base-portuguese-cased", "Foo-BAR_foo.bar123", "123", "_a/b_"]
        {
            assert_eq!(parse(Path::new(name)), Some((name, "main")), "{name}");
        }
        assert_eq!(parse(Path::new("a/b@v1.0")), Some(("a/b", "v1.0")));
        assert_eq!(parse(Path::new("a@refs/pr/3")), Some(("a", "refs/pr/3")));
        let long = "a".repeat(97);
        for place in [
            "", ".", "..", "/a", "a/", "./a", "../a", "a/b/c", "a b", "-a", "a-", ".a", "a.", "a/.b", "a--b", "a..b",
            "a.git", "c:\\a", "é", &long, "a@", "a@..", "a@/v", "a@v/../w", "a@v?w", "@v", "a@b@c",
        ] {
            assert_eq!(parse(Path::new(place)), None, "{place}");
        }
    }
}
