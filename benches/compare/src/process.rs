//! The process of a contestant, which runs from preparation to the last turn.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Result;
use crate::protocol::{Reply, Request};

/// A running contestant. Dropping it ends the process.
pub struct Process {
    child: Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Process {
    /// Starts a program, with its standard error redirected to the file `log`.
    ///
    /// # Errors
    /// Returns an error if the program cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Process> {
        let program = command.get_program().to_string_lossy().into_owned();
        let errors = File::create(log).map_err(|error| format!("{}: cannot write: {error}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(|error| format!("cannot run {program}: {error}"))?;
        let requests = child.stdin.take().ok_or("no standard input")?;
        let replies = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Process { child, requests, replies, log: log.to_path_buf() })
    }

    /// Sends a request and waits for the reply.
    ///
    /// # Errors
    /// Returns an error if the process has ended, its reply is invalid, or it reports a failure.
    pub fn ask(&mut self, request: &Request) -> Result<Reply> {
        let line = serde_json::to_string(request)? + "\n";
        let sent = self.requests.write_all(line.as_bytes());
        let mut reply = String::new();
        if sent.is_err() || self.replies.read_line(&mut reply)? == 0 {
            return Err(format!("ended without a reply; last line on stderr: {}", self.last_error()).into());
        }
        match serde_json::from_str(&reply)? {
            Reply::Failed(why) => Err(why.into()),
            reply => Ok(reply),
        }
    }

    /// Reads a line that the process prints without a request.
    ///
    /// # Errors
    /// Returns an error if the process ends without printing one.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.replies.read_line(&mut line)? {
            0 => Err(format!("ended without an answer; last line on stderr: {}", self.last_error()).into()),
            _ => Ok(line),
        }
    }

    /// Returns its peak memory in bytes, or `None` if the system does not report it.
    pub fn peak_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    }

    fn last_error(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("none");
        format!("{last} ({})", self.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A contestant has nothing to clean up.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
