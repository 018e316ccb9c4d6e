//! Lets the calls of a program fail one by one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::library::{Call, Order, Way, calls, intercept};
use super::state::{State, copy};

/// A run takes well below a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fills a folder.
type Prepare = dyn Fn(&Path) -> io::Result<()> + Sync;

/// A program, and what it is given.
pub struct Program {
    pub name: &'static str,
    /// Fills an empty folder with the input, and with what earlier runs left.
    pub prepare: Box<Prepare>,
    /// Returns the command that works in this folder. Run again, it continues.
    pub command: Box<dyn Fn(&Path) -> Command + Sync>,
    /// Returns what a failure has damaged in the folder, besides the files that were there before.
    pub damage: fn(&Path) -> Option<String>,
    /// Returns whether a path, within the folder, only saves work, so that the program goes on without it.
    pub saves_work: fn(&str) -> bool,
}

/// How a run ended.
struct Ended {
    status: ExitStatus,
    said: String,
}

/// The faults of a program, and what became of them.
#[derive(Default)]
pub struct Tally {
    pub calls: usize,
    pub faults: usize,
    /// The faults that the program has overcome, that it has reported, and that have killed it.
    pub ended: [usize; 3],
    /// The number of faults of each way.
    pub ways: BTreeMap<&'static str, usize>,
    pub lost: Vec<String>,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [overcome, reported, killed] = self.ended;
        write!(f, "{} calls, {} faults (", self.calls, self.faults)?;
        let ways: Vec<String> = self.ways.iter().map(|(way, count)| format!("{way} {count}")).collect();
        write!(f, "{}): {overcome} overcome, {reported} reported, {killed} killed, ", ways.join(", "))?;
        write!(f, "{} lost", self.lost.len())
    }
}

/// A program whose calls are known.
pub struct Sweep<'p> {
    program: &'p Program,
    library: &'p Path,
    scratch: tempfile::TempDir,
    before: State,
    after: State,
    calls: Vec<Call>,
}

impl<'p> Sweep<'p> {
    /// Prepares the input, and runs the program twice without faults.
    pub fn new(program: &'p Program, library: &'p Path) -> io::Result<Sweep<'p>> {
        let scratch = tempfile::Builder::new().disable_cleanup(chosen().is_some()).tempdir()?;
        let [template, first, second] = ["template", "first", "second"].map(|name| scratch.path().join(name));
        fs::create_dir_all(template.join("tmp"))?;
        (program.prepare)(&template)?;
        let before = State::of(&template)?;
        let log = scratch.path().join("log");
        let run = |folder: &Path, order| {
            copy(&template, folder)?;
            let mut command = (program.command)(folder);
            intercept(&mut command, library, folder, &log, order);
            let ended = finish(command, scratch.path(), folder)?;
            assert!(ended.status.success(), "{}: {}: {}", program.name, ended.status, ended.said);
            let state = State::of(folder)?;
            fs::remove_dir_all(folder)?;
            Ok::<_, io::Error>(state)
        };
        let after = run(&first, Order::Log)?;
        let difference = run(&second, Order::Pass)?.difference(&after, |_| false);
        assert_eq!(difference, None, "{}: two runs differ", program.name);
        Ok(Sweep { program, library, before, after, calls: calls(&log)?, scratch })
    }

    /// Returns all faults: a call, from 1, and how it fails. The variable `CLOZE_FAULT` chooses one by the words that a failure
    /// begins with, `"PROGRAM CALL WAY"`.
    pub fn faults(&self) -> Vec<(usize, Way)> {
        let of_call = |(index, call): (usize, &Call)| {
            let ways = Way::ALL.into_iter().filter(|way| way.applies(call));
            ways.map(|way| (index + 1, way)).collect::<Vec<_>>()
        };
        let faults = self.calls.iter().enumerate().flat_map(of_call);
        let name = |(call, way): &(usize, Way)| format!("{} {call} {}", self.program.name, way.name());
        faults.filter(|fault| chosen().is_none_or(|chosen| chosen == name(fault))).collect()
    }

    /// Returns about `count` of the faults, as many of each way, spread over all calls.
    pub fn sample(&self, count: usize) -> Vec<(usize, Way)> {
        let all = self.faults();
        let of_way = |(place, way): (usize, Way)| {
            let faults: Vec<_> = all.iter().copied().filter(|(_, other)| *other == way).collect();
            let every = (faults.len() * Way::ALL.len() / count).max(1);
            // Different calls for different ways.
            faults.into_iter().skip(every * place / Way::ALL.len()).step_by(every).collect::<Vec<_>>()
        };
        Way::ALL.into_iter().enumerate().flat_map(of_way).collect()
    }

    /// Lets the program meet each of the `faults`, several at a time.
    pub fn run(&self, faults: &[(usize, Way)], threads: usize) -> Tally {
        let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally { calls: self.calls.len(), ..Tally::default() }));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(&(call, way)) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let met = self.meet(call, way);
                        let mut tally = tally.lock().expect("no thread panics");
                        tally.faults += 1;
                        *tally.ways.entry(way.name()).or_default() += 1;
                        match met {
                            Ok(ended) => tally.ended[ended] += 1,
                            Err(why) => {
                                tally.lost.push(format!("{} {call} {}: {why}", self.program.name, way.name()));
                            }
                        }
                    }
                });
            }
        });
        tally.into_inner().expect("no thread panics")
    }

    /// Lets a call fail, then runs the program again. Returns how the first run ended, as an index of [`Tally::ended`].
    ///
    /// # Errors
    /// Returns what is lost.
    fn meet(&self, call: usize, way: Way) -> Result<usize, String> {
        let place = self.scratch.path().join(format!("{call}-{}", way.name()));
        let met = self.meet_in(&place, call, way);
        match chosen() {
            Some(_) => met.map_err(|why| format!("{}: {why}", place.display())),
            None => fs::remove_dir_all(&place).map_err(|error| error.to_string()).and(met),
        }
    }

    fn meet_in(&self, place: &Path, call: usize, way: Way) -> Result<usize, String> {
        let io = |error: io::Error| error.to_string();
        let (folder, log) = (place.join("root"), place.join("log"));
        copy(&self.scratch.path().join("template"), &folder).map_err(io)?;
        let run = |order| {
            let mut command = (self.program.command)(&folder);
            intercept(&mut command, self.library, &folder, &log, order);
            finish(command, place, &folder).map_err(io)
        };
        let first = run(Order::Fail(call, way))?;
        // The library creates the file when it starts.
        let hit = calls(&log).map_err(io)?;
        let Some(hit) = hit.first() else { return Err("the run had fewer calls than the one without faults".into()) };
        let at_hit = |why: String| format!("{} {}: {why}", hit.name, hit.path);
        let ended = self.judge(&first, &folder, way, hit).map_err(at_hit)?;

        let second = run(Order::Pass)?;
        if !second.status.success() || !second.said.is_empty() {
            return Err(at_hit(format!("the next run: {}: {}", second.status, second.said)));
        }
        let difference = State::of(&folder).map_err(io)?.difference(&self.after, self.program.saves_work);
        difference.map_or(Ok(ended), |difference| Err(at_hit(format!("after the next run, {difference}"))))
    }

    /// Decides whether the run that met a fault may end so, and leave this.
    fn judge(&self, first: &Ended, folder: &Path, way: Way, hit: &Call) -> Result<usize, String> {
        let ended = self.judge_end(first, folder, way)?;
        let found = State::of(folder).map_err(|error| error.to_string())?;
        if let Some(lost) = found.lost(&self.before, &self.after).or_else(|| (self.program.damage)(folder)) {
            return Err(lost);
        }
        // What a process could not remove is removed by the next one.
        let is_removal =
            ["unlink", "rmdir"].iter().any(|name| hit.name.starts_with(name)) || hit.path.contains(".deleted-");
        if way.kills() || way == Way::Dead || is_removal {
            return Ok(ended);
        }
        if let Some(path) = found.left_over() {
            return Err(format!("{path} is left over; {}", first.said.trim_end()));
        }
        match found.difference(&self.after, self.program.saves_work) {
            Some(difference) if ended == 0 => Err(format!("after success, {difference}")),
            _ => Ok(ended),
        }
    }

    fn judge_end(&self, Ended { status, said }: &Ended, folder: &Path, way: Way) -> Result<usize, String> {
        match (status.code(), status.signal()) {
            (Some(0), _) if !way.kills() && said.is_empty() => Ok(0),
            (Some(1), _) if !way.kills() && !way.is_harmless() => {
                let reason =
                    if matches!(way, Way::NoSpace | Way::Full) { "No space left" } else { "Input/output error" };
                let is_clear = said.starts_with("error: ")
                    && said.trim_end().lines().count() == 1
                    && said.contains(&*folder.to_string_lossy())
                    && said.contains(reason);
                if is_clear { Ok(1) } else { Err(format!("the error is not clear: {said}")) }
            }
            (None, Some(9)) if way.kills() => Ok(2),
            _ => Err(format!("{status}: {said}")),
        }
    }
}

/// Runs a command to its end, with a folder for temporary files within its own.
fn finish(mut command: Command, place: &Path, folder: &Path) -> io::Result<Ended> {
    let errors = place.join("stderr");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&errors)?);
    let mut child = command.env("TMPDIR", folder.join("tmp")).current_dir(folder).spawn()?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended { status, said: fs::read_to_string(&errors)? });
        }
        if begun.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn chosen() -> Option<String> {
    std::env::var("CLOZE_FAULT").ok()
}

/// Returns the path of a library for the tests of this process.
pub fn library() -> Option<PathBuf> {
    static LIBRARY: std::sync::LazyLock<Option<(tempfile::TempDir, PathBuf)>> = std::sync::LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        super::library::compile(folder.path()).map(|library| (folder, library))
    });
    LIBRARY.as_ref().map(|(_, library)| library.clone())
}
