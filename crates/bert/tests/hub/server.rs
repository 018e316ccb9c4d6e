//! A hub on the loopback address, with the redirects, headers and error codes of the real one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    pub path: String,
    /// The names are lower case.
    pub headers: BTreeMap<String, String>,
}

pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// The number of bytes of the body after which the server closes the connection, or stops sending if it stalls.
    cut: usize,
    stalls: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, headers: Vec::new(), body: body.into(), cut: usize::MAX, stalls: false }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.into()));
        self
    }

    pub fn cut(self, bytes: usize) -> Reply {
        Reply { cut: bytes, ..self }
    }

    /// Removes the last byte of the body.
    pub fn shorter(mut self) -> Reply {
        self.body.pop();
        self
    }

    /// Adds a byte to the body.
    pub fn longer(mut self) -> Reply {
        self.body.push(0);
        self
    }

    pub fn is(&self, status: u16) -> bool {
        self.status == status
    }

    pub fn stall(self, bytes: usize) -> Reply {
        Reply { cut: bytes, stalls: true, ..self }
    }

    fn send(&self, method: &str, stream: &mut TcpStream) -> std::io::Result<()> {
        write!(stream, "HTTP/1.1 {} Some Words\r\n", self.status)?;
        for (name, value) in &self.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        if !self.headers.iter().any(|(name, _)| *name == "Transfer-Encoding") {
            write!(stream, "Content-Length: {}\r\n", self.body.len())?;
        }
        stream.write_all(b"\r\n")?;
        if method != "HEAD" {
            stream.write_all(&self.body[..self.cut.min(self.body.len())])?;
        }
        if self.stalls {
            std::thread::sleep(Duration::from_secs(60));
        }
        if self.cut == usize::MAX { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
    }
}

/// A server that answers on separate threads until the process ends.
pub struct Server {
    pub address: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (asked, reply) = (Arc::new(Mutex::new(Vec::new())), Arc::new(reply));
        let server = Server { address, asked: asked.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, asked, reply) = (stream.unwrap(), asked.clone(), reply.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while let Some(request) = read(&mut reader) {
                        asked.lock().unwrap().push(request.clone());
                        if reply(&request).send(&request.method, &mut stream).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        server
    }

    /// Returns the requests since the last call.
    pub fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut lines = reader.lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let start = lines.next()?;
    let mut words = start.split(' ').map(str::to_string);
    let (method, path) = (words.next()?, words.next()?);
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_lowercase(), value.trim().to_string()))
    });
    Some(Request { method, path, headers: headers.collect() })
}

/// A repository as the hub serves it: small files from another path, large files from another host.
#[derive(Clone)]
pub struct Repository {
    name: &'static str,
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Repository {
    pub fn of(name: &'static str, folder: &Path) -> Repository {
        let mut files = BTreeMap::new();
        for inside in ["", "1_Pooling/"] {
            for entry in std::fs::read_dir(folder.join(inside)).into_iter().flatten().map(Result::unwrap) {
                if entry.path().is_file() {
                    let name = format!("{inside}{}", entry.file_name().to_str().unwrap());
                    files.insert(name, std::fs::read(entry.path()).unwrap());
                }
            }
        }
        Repository { name, files }
    }

    /// Returns the answer of the hub, whose large files are at `store`.
    pub fn reply(&self, request: &Request, store: &str) -> Reply {
        if let Some(cached) = request.path.strip_prefix("/api/resolve-cache/models/") {
            let (_, file) = cached.split_once(&format!("{COMMIT}/")).unwrap();
            let file = file.split('?').next().unwrap();
            return self.content(file).header("X-Repo-Commit", COMMIT).header("ETag", quoted(&self.files[file]));
        }
        let Some((name, path)) = request.path[1..].split_once("/resolve/") else { return Reply::new(404, "") };
        if name != self.name {
            // The hub's answer to users who are not logged in.
            return Reply::new(401, "").header("X-Error-Code", "RepoNotFound");
        }
        let Some((revision @ ("main" | COMMIT | "refs%2Fpr%2F3"), file)) = path.split_once('/') else {
            return Reply::new(404, "").header("X-Error-Code", "RevisionNotFound");
        };
        let reply = match self.files.get(file) {
            None => Reply::new(404, "Entry not found").header("X-Error-Code", "EntryNotFound"),
            Some(content) if file.ends_with(".safetensors") => Reply::new(302, "Found. Redirecting")
                .header("Location", format!("{store}/{file}?Signature=abc"))
                .header("X-Linked-Etag", quoted(content))
                .header("X-Linked-Size", content.len().to_string()),
            Some(content) => Reply::new(307, "Temporary Redirect").header(
                "Location",
                format!("/api/resolve-cache/models/{name}/{COMMIT}/{file}?{revision}=&etag={}", etag(content)),
            ),
        };
        reply.header("X-Repo-Commit", COMMIT)
    }

    /// Returns the bytes of a file without further headers, as the store sends them.
    pub fn content(&self, file: &str) -> Reply {
        Reply::new(200, self.files[file].clone())
    }
}

/// Returns an entity tag for the content, in the form that the hub uses.
pub fn etag(content: &[u8]) -> String {
    let hash = content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:040x}")
}

fn quoted(content: &[u8]) -> String {
    format!("\"{}\"", etag(content))
}
