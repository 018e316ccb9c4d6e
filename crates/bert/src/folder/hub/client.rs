//! Downloading a file from the hub: `ENDPOINT/NAME/resolve/REVISION/FILE`, with its redirects and headers.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::time::Duration;

use ureq::http::{HeaderMap, Uri};
use ureq::{Agent, Body, BodyReader};

use super::cache::is_commit;
use super::progress;

const REDIRECTS: usize = 10;
/// The number of bytes per read.
const PART: usize = 1 << 16;

pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    /// The endpoint in messages.
    shown: String,
    token: Option<String>,
    patience: Duration,
}

/// The hub's answer to a request for a file.
pub(super) enum Answer {
    File(Download),
    /// The file does not exist, in this commit if the answer names one.
    Missing(Option<String>),
}

/// A file that is ready to be received.
pub(super) struct Download {
    pub(super) commit: String,
    /// The entity tag, which identifies the content of the file.
    pub(super) etag: String,
    pub(super) size: u64,
    body: BodyReader<'static>,
}

/// The headers that describe a file. The first answer has them, before any redirect to a storage server.
#[derive(Default)]
struct Described {
    commit: Option<String>,
    etag: Option<String>,
    size: Option<u64>,
}

impl Client {
    pub(super) fn new(endpoint: &str, token: Option<String>, patience: Duration) -> Client {
        let agent = Agent::config_builder()
            .user_agent(concat!("cloze/", env!("CARGO_PKG_VERSION")))
            // The size of a file that is compressed in transit would differ from the header.
            .accept_encoding("identity")
            .http_status_as_error(false)
            // `get` follows redirects: their headers are needed, and the token must only go to the endpoint.
            .max_redirects(0)
            .timeout_resolve(Some(patience))
            .timeout_connect(Some(patience))
            .timeout_recv_response(Some(patience))
            .timeout_per_read(Some(patience))
            .timeout_per_write(Some(patience))
            .build()
            .into();
        let endpoint = endpoint.trim_end_matches('/').to_string();
        Client { agent, shown: without_credentials(&endpoint), endpoint, token, patience }
    }

    /// Requests a file of a repository at a revision.
    ///
    /// # Errors
    /// Returns an error if the hub cannot be reached, refuses the request, does not have the repository or the
    /// revision, or sends an invalid answer.
    pub(super) fn get(&self, name: &str, revision: &str, file: &str) -> Result<Answer> {
        let address = format!("{}/{name}/resolve/{}/{}", self.endpoint, encoded(revision, ""), encoded(file, "/"));
        let start: Uri = address
            .parse()
            .map_err(|_| self.error(ErrorKind::InvalidInput, "is not a valid address: check HF_ENDPOINT"))?;
        if !matches!(start.scheme_str(), Some("http" | "https")) {
            return Err(self.error(ErrorKind::InvalidInput, "is not an http address: check HF_ENDPOINT"));
        }
        if self.token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Error::new(ErrorKind::InvalidInput, "the token has invalid characters: check HF_TOKEN"));
        }
        let mut at = start.clone();
        let mut described = Described::default();
        for _ in 0..REDIRECTS {
            let mut request = self.agent.get(&at);
            if let Some(token) = &self.token
                && origin(&at) == origin(&start)
            {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let answer = request.call().map_err(|error| self.unreachable(&at, error))?;
            let headers = answer.headers();
            let status = answer.status();
            if let Some(commit) = text(headers, "x-repo-commit") {
                described = Described {
                    commit: Some(commit.to_string()).filter(|commit| is_commit(commit)),
                    etag: text(headers, "x-linked-etag").or(text(headers, "etag")).and_then(plain_etag),
                    size: text(headers, "x-linked-size").and_then(|size| size.parse().ok()),
                };
            }
            if status.is_redirection()
                && let Some(location) = text(headers, "location")
            {
                at = follow(&at, location)
                    .ok_or_else(|| self.error(ErrorKind::InvalidData, "redirects to an invalid address"))?;
                continue;
            }
            if status.is_success() {
                return self.download(described, answer.into_body()).map(Answer::File);
            }
            if origin(&at) != origin(&start) {
                return Err(Error::other(format!("{}: {status}", without_credentials(&host(&at)))));
            }
            return match (text(headers, "x-error-code"), status.as_u16()) {
                (Some("EntryNotFound"), _) | (None, 404) => Ok(Answer::Missing(described.commit)),
                (code, status) => Err(self.refusal(name, revision, code, status)),
            };
        }
        Err(self.error(ErrorKind::InvalidData, "redirects too often"))
    }

    fn download(&self, described: Described, body: Body) -> Result<Download> {
        let lacks = |what: &str| {
            let reason =
                format!("sends no valid {what}, so it is not a Hugging Face hub: check HF_ENDPOINT and the proxy");
            self.error(ErrorKind::InvalidData, &reason)
        };
        Ok(Download {
            commit: described.commit.ok_or_else(|| lacks("commit (X-Repo-Commit)"))?,
            etag: described.etag.ok_or_else(|| lacks("entity tag (ETag)"))?,
            size: described.size.or(body.content_length()).ok_or_else(|| lacks("size (Content-Length)"))?,
            body: body.into_reader(),
        })
    }

    fn refusal(&self, name: &str, revision: &str, code: Option<&str>, status: u16) -> Error {
        let known = if self.token.is_some() { "the token" } else { "HF_TOKEN, which is not set," };
        let (kind, reason) = match (code, status) {
            (Some("RevisionNotFound"), _) => (ErrorKind::NotFound, format!("has no revision {revision} of {name}")),
            (Some("GatedRepo"), _) => {
                let page = format!("{}/{name}", self.shown);
                let reason = format!(
                    "requires accepting the conditions of {name}: do so at {page}; {known} must belong to that account"
                );
                (ErrorKind::PermissionDenied, reason)
            }
            // The hub also answers 401 if the repository does not exist.
            (Some("RepoNotFound"), _) | (_, 401) => {
                let endpoint = &self.shown;
                let reason = format!(
                    "no such folder, and {endpoint} has no public repository {name} ({status}): check the name; if it is \
                     private, {known} must have access"
                );
                return Error::new(ErrorKind::NotFound, reason);
            }
            (_, 403) => (ErrorKind::PermissionDenied, format!("refuses access to {name}: {known} must have access")),
            (_, 429) => (ErrorKind::Other, "received too many requests: try again later".to_string()),
            (_, 500..) => (ErrorKind::Other, "has an internal error: try again later".to_string()),
            _ => (ErrorKind::Other, "refuses the request".to_string()),
        };
        self.error(kind, &format!("{reason} ({status})"))
    }

    fn unreachable(&self, at: &Uri, error: ureq::Error) -> Error {
        let (kind, why) = match error {
            ureq::Error::Io(error) => (error.kind(), error.to_string()),
            ureq::Error::Timeout(_) => (ErrorKind::TimedOut, format!("no answer in {} s", self.patience.as_secs())),
            ureq::Error::HostNotFound => (ErrorKind::HostUnreachable, "host not found".to_string()),
            other => (ErrorKind::Other, other.to_string()),
        };
        let todo = "give a folder, or set HF_HUB_OFFLINE=1 if the model is in the cache";
        let host = without_credentials(&host(at));
        Error::new(kind, format!("no such folder, and {host} cannot be reached ({why}): {todo}"))
    }

    fn error(&self, kind: ErrorKind, reason: &str) -> Error {
        Error::new(kind, format!("{} {reason}", self.shown))
    }
}

impl Download {
    /// Writes the file to `to`.
    ///
    /// # Errors
    /// Returns an error if the file is not received completely or has another size than announced.
    pub(super) fn receive(mut self, file: &str, to: &mut impl Write) -> Result<()> {
        let bar = progress::bar(file, self.size);
        let mut part = vec![0; PART];
        let mut received = 0;
        loop {
            let cut = |why: String| {
                let reason =
                    format!("the download of {file} ended after {received} of {} bytes{why}: try again", self.size);
                Error::new(ErrorKind::UnexpectedEof, reason)
            };
            let read = match self.body.read(&mut part) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.map_err(|error| cut(format!(" ({error})")))?,
            };
            if read == 0 && received == self.size {
                bar.finish_and_clear();
                return Ok(());
            }
            if read == 0 {
                return Err(cut(String::new()));
            }
            received += read as u64;
            if received > self.size {
                let reason = format!("the download of {file} has more than the announced {} bytes", self.size);
                return Err(Error::new(ErrorKind::InvalidData, reason));
            }
            to.write_all(&part[..read])?;
            bar.set_position(received);
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Returns an entity tag as a file name, without quotes and the mark of weak tags, or `None` if it is not a safe name.
fn plain_etag(etag: &str) -> Option<String> {
    let etag = etag.trim().trim_start_matches("W/").trim_matches('"');
    let named = etag.starts_with(|c: char| c.is_ascii_alphanumeric())
        && etag.len() <= 128
        && etag.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    named.then(|| etag.to_string())
}

/// Returns the origin of an address. The token is only sent to the origin of the endpoint.
fn origin(address: &Uri) -> (Option<&str>, Option<&str>, Option<u16>) {
    (address.scheme_str(), address.host(), address.port_u16())
}

fn host(address: &Uri) -> String {
    format!("{}://{}", address.scheme_str().unwrap_or_default(), address.authority().map_or("", |host| host.as_str()))
}

/// Returns an address without the name and the password that it may have, for messages.
pub(super) fn without_credentials(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}{}{host}{path}", if scheme.is_empty() { "" } else { "://" })
}

/// Resolves the `location` of a redirect, which may be relative, against `at`. Returns `None` if it is invalid or leads
/// from https to http.
fn follow(at: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let to: Uri = if location.contains("://") {
        location.parse().ok()?
    } else if location.starts_with("//") {
        format!("{}:{location}", at.scheme_str()?).parse().ok()?
    } else if location.starts_with('/') {
        format!("{}{location}", host(at)).parse().ok()?
    } else {
        let folder = at.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{}{folder}/{location}", host(at)).parse().ok()?
    };
    match to.scheme_str()? {
        "https" => Some(to),
        "http" if at.scheme_str() == Some("http") => Some(to),
        _ => None,
    }
}

/// Percent-encodes all characters that are reserved in an address, except those in `kept`.
fn encoded(text: &str, kept: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.as_bytes().contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved() {
        // Python's `urllib.parse.urljoin` gives the same results.
        for (at, location, to) in [
            ("http://h:1/a/b/c?x=1", "/d?e=%2F", Some("http://h:1/d?e=%2F")),
            ("http://h:1/a/b/c?x=1", "d", Some("http://h:1/a/b/d")),
            ("http://h:1/a/b/c", "//g/d", Some("http://g/d")),
            ("https://h/a", "//g/d", Some("https://g/d")),
            ("http://h:1/a", "https://g:2/d", Some("https://g:2/d")),
            ("https://h/a", "http://h/d", None),
            ("http://h/a", "file:///d", None),
            ("http://h/a", "http://", None),
        ] {
            let at: Uri = at.parse().unwrap();
            assert_eq!(follow(&at, location).map(|to| to.to_string()).as_deref(), to, "{at} {location}");
        }
        let [a, b]: [Uri; 2] = ["https://h/a", "https://h/b?c"].map(|address| address.parse().unwrap());
        assert_eq!(origin(&a), origin(&b));
        for other in ["http://h/a", "https://h:8443/a", "https://h.g/a"] {
            assert_ne!(origin(&a), origin(&other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        for (address, shown) in [
            ("https://hub.example/a@b", "https://hub.example/a@b"),
            ("https://name:p@ss@hub.example:8443/a?b", "https://hub.example:8443/a?b"),
            ("name:secret@hub", "hub"),
            ("", ""),
        ] {
            assert_eq!(without_credentials(address), shown);
        }
    }

    #[test]
    fn names_are_encoded() {
        // Python's `urllib.parse.quote` gives the same results.
        assert_eq!(encoded("refs/pr/3", ""), "refs%2Fpr%2F3");
        assert_eq!(encoded("1_Pooling/é a?.json", "/"), "1_Pooling/%C3%A9%20a%3F.json");
        assert_eq!(plain_etag("W/\"0a-b_c.d\"").as_deref(), Some("0a-b_c.d"));
        for etag in ["", "\"\"", "\"..\"", "\".a\"", "a/b", "a\\b", "a:b", "a b", &"a".repeat(129)] {
            assert_eq!(plain_etag(etag), None, "{etag}");
        }
    }
}
