//! Exact search among vectors: `Index` in f32, int8 and bits, beside faiss and torch where `CLOZE_PYTHON` names a Python that
//! has them.
//!
//! ```sh
//! CLOZE_PYTHON=python cargo bench -p cloze-benches --bench search
//! ```
//!
//! Every row is the best of five rounds, in which all take their turn.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use cloze::prelude::*;
use cloze::tensor::random::Stream;

const ROUNDS: usize = 5;
const K: usize = 10;
/// Vectors, their elements, and queries at a time.
const SHAPES: [(usize, usize, usize); 4] = [(10_000, 384, 1), (100_000, 384, 1), (100_000, 384, 64), (100_000, 768, 1)];

fn main() -> Result<(), Box<dyn Error>> {
    // As criterion's benches, which run once with it.
    let is_smoke = std::env::args().any(|argument| argument == "--test");
    let mut peer = Peer::start()?;
    let peers: &[&str] = if peer.is_some() { &["faiss", "torch", "faiss int8", "faiss bits"] } else { &[] };
    println!("{:>8} {:>5} {:>8}  {:<12} {:>10} {:>10}", "vectors", "width", "queries", "", "ms", "GB/s");
    for (count, width, queries) in SHAPES {
        let count = if is_smoke { 100 } else { count };
        let vectors = vectors(count, width, 1)?;
        let queries = self::vectors(queries, width, 2)?;
        let exact = Index::new(&vectors)?;
        let forms = [("f32", 4.0, exact.clone()), ("int8", 1.0, exact.clone().int8()?), ("bits", 0.125, exact.bits()?)];
        let mut best = vec![f64::INFINITY; forms.len() + peers.len()];
        for _ in 0..if is_smoke { 1 } else { ROUNDS } {
            for ((_, _, index), best) in forms.iter().zip(&mut best) {
                let begun = Instant::now();
                assert_eq!(index.search_all(&queries, K)?.len(), queries.len());
                *best = best.min(begun.elapsed().as_secs_f64());
            }
            if let Some(peer) = &mut peer {
                for (name, best) in peers.iter().zip(&mut best[forms.len()..]) {
                    *best = best.min(peer.time(name, (count, width, queries.len()))?);
                }
            }
        }
        let bytes = (count * width) as f64;
        let own = forms.iter().map(|(name, bytes, _)| (*name, *bytes));
        let others = peers.iter().zip([4.0, 4.0, 1.0, 0.125]).map(|(name, bytes)| (*name, bytes));
        for ((name, per_element), seconds) in own.chain(others).zip(best) {
            let (queries, speed) = (queries.len(), bytes * per_element / seconds / 1e9);
            println!("{count:>8} {width:>5} {queries:>8}  {name:<12} {:>10.3} {speed:>10.1}", seconds * 1e3);
        }
    }
    Ok(())
}

fn vectors(count: usize, width: usize, seed: u64) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    let numbers = Tensor::randn(&[count, width], 1.0, &mut Stream::seeded(seed), &Device::Cpu)?.to_vec::<f32>()?;
    Ok(numbers.chunks_exact(width).map(<[f32]>::to_vec).collect())
}

/// A Python process that searches when it is told to.
struct Peer {
    child: Child,
    orders: ChildStdin,
    times: BufReader<ChildStdout>,
}

impl Peer {
    fn start() -> Result<Option<Peer>, Box<dyn Error>> {
        let Ok(python) = std::env::var("CLOZE_PYTHON") else {
            println!("SKIPPED: faiss and torch, because CLOZE_PYTHON does not name a Python that has them");
            return Ok(None);
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/search_peer.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let orders = child.stdin.take().ok_or("no input")?;
        let mut times = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut versions = String::new();
        times.read_line(&mut versions)?;
        if versions.is_empty() {
            child.wait()?;
            println!("SKIPPED: faiss and torch, because the Python of CLOZE_PYTHON lacks one of them");
            return Ok(None);
        }
        print!("{versions}");
        Ok(Some(Peer { child, orders, times }))
    }

    /// Returns the seconds of a search by the library of this name.
    fn time(&mut self, name: &str, (count, width, queries): (usize, usize, usize)) -> Result<f64, Box<dyn Error>> {
        writeln!(self.orders, "{count} {width} {queries} {K} {name}")?;
        let mut answer = String::new();
        self.times.read_line(&mut answer)?;
        Ok(answer.trim().parse()?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
