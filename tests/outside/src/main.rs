//! What people build with the library: a search, a classifier of their own rows, a service, and a model of their own. Prints the
//! time that each part takes.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cloze::prelude::*;
use cloze::tensor::module;
use cloze::tensor::random::Stream;

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> Result {
    let model = PathBuf::from(std::env::args().nth(1).ok_or("usage: outside MODEL_FOLDER")?);
    let folder = std::env::temp_dir().join(format!("outside-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let parts: [(&str, fn(&Path, &Path) -> Result); 4] =
        [("search", search), ("fine-tune", fine_tune), ("serve", serve), ("train", train)];
    for (name, part) in parts {
        let begun = Instant::now();
        part(&model, &folder)?;
        println!("{name} {:.3}", begun.elapsed().as_secs_f64());
    }
    Ok(std::fs::remove_dir_all(folder)?)
}

/// Embeds 1,000 sentences, finds the nearest ten, and lets a cross-encoder sort them.
fn search(model: &Path, folder: &Path) -> Result {
    let (animals, places) = (["cat", "dog", "bird", "fish", "horse"], ["mat", "river", "boat", "garden", "house"]);
    let sentence = |at: usize| {
        let (animal, place) = (animals[at % 5], places[at / 5 % 5]);
        format!("On day {at} the {animal} sat for a long time on the {place} and looked at the sea.")
    };
    let sentences: Vec<String> = (0..1000).map(sentence).collect();
    let embedder = SentenceEmbedder::open(model)?;
    let index = Index::new(&embedder.embed(&sentences)?)?;
    let path = folder.join("sentences.safetensors");
    index.save(&path)?;
    let found = Index::open(&path)?.search(&embedder.embed(&[&sentences[77]])?[0], 10)?;
    assert_eq!(found[0].0, 77);

    let documents: Vec<&String> = found.iter().map(|(number, _)| &sentences[*number]).collect();
    let options = OpenOptions::new().labels(&["relevance"]).fresh_head();
    let scorer = BertForSequenceClassification::open_with(model, &Device::Cpu, &options)?;
    let ranked = CrossEncoder::new(scorer, Tokenizer::open(model)?)?.rank("Where was the bird?", &documents, 3)?;
    assert_eq!(ranked.len(), 3);
    Ok(())
}

/// Trains a classifier on the rows of a CSV file, and saves it.
fn fine_tune(model: &Path, folder: &Path) -> Result {
    let mut csv = "sentence,label\n".to_string();
    let words = [("lovely", "good"), ("wonderful", "good"), ("boring", "bad"), ("awful", "bad")];
    for (number, (word, label)) in words.iter().cycle().take(64).enumerate() {
        writeln!(csv, "\"Evening {number}, it was a {word} one.\",{label}")?;
    }
    let path = folder.join("rows.csv");
    std::fs::write(&path, csv)?;

    let rows = read_rows(&path, &Columns::new())?;
    let labels = label_names(&rows)?;
    let clean = sanitize("rows.csv", rows, Some(&labels));
    let options = OpenOptions::new().labels(&labels).fresh_head();
    let mut classifier = BertForSequenceClassification::open_with(model, &Device::Cpu, &options)?;
    let tokenizer = Tokenizer::open(model)?;
    let (data, _) = clean.encode(&tokenizer, 64)?;
    Trainer::new(&mut classifier).optimizer(AdamW::new(1e-3)).batch_size(16).epochs(6).run(&data)?;
    classifier.save(folder)?;
    tokenizer.save(folder)?;
    Ok(())
}

/// Answers from eight threads that share one classifier.
fn serve(_: &Path, folder: &Path) -> Result {
    let classifier = TextClassification::open(folder)?;
    let texts = ["Evening 3, it was a wonderful one.", "Evening 7, it was a boring one."];
    std::thread::scope(|scope| {
        let ask = || -> Result<Vec<String>, cloze::bert::Error> {
            let answers = (0..25).map(|_| classifier.classify(&texts)).collect::<Result<Vec<_>, _>>()?;
            Ok(answers.last().into_iter().flat_map(|found| found.iter().map(|one| one.label.clone())).collect())
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        for thread in threads {
            assert_eq!(thread.join().map_err(|_| "a thread panicked")??, ["good", "bad"]);
        }
        Ok(())
    })
}

/// A perceptron with one hidden layer.
struct Mlp {
    hidden: Tensor,
    output: Tensor,
}
module!(Mlp { hidden, output });

/// x σ(x), whose backward is written here.
fn swish(x: &Tensor) -> cloze::tensor::Result<Tensor> {
    custom_op(
        "swish",
        [x],
        |[x]| Ok(((x * x.sigmoid()?)?, [x.clone()])),
        |[x], gradient| {
            let s = x.sigmoid()?;
            let slope = (&s + ((x * &s)? * (1.0 - &s)?)?)?;
            Ok([Some((gradient * slope)?)])
        },
    )
}

/// The Huber loss: quadratic for errors below 1, linear above.
fn huber(predictions: &Tensor, targets: &Tensor) -> cloze::tensor::Result<Tensor> {
    let error = (predictions - targets)?.abs()?;
    let small = error.clamp(0.0, 1.0)?;
    ((small.pow(2.0)? * 0.5)? + (error - small)?)?.mean_all()
}

/// Fits a surface with a loss and an operation of its own.
fn train(_: &Path, _: &Path) -> Result {
    let mut stream = Stream::seeded(7);
    let mut random = |shape: &[usize], std| Tensor::randn(shape, std, &mut stream, &Device::Cpu);
    let mut mlp = Mlp { hidden: random(&[2, 32], 0.7)?, output: random(&[32, 1], 0.2)? };
    let x = random(&[256, 2], 1.0)?;
    check_gradients(&[x.narrow(0, 0, 8)?], |x| swish(&x[0]))?;
    let targets = (x.narrow(1, 0, 1)? * x.narrow(1, 1, 1)?)?;
    let mut optimizer = AdamW::new(0.02).weight_decay(0.0).optimizer(&mut mlp)?;
    let mut last = f64::INFINITY;
    for _ in 0..300 {
        let loss = huber(&swish(&x.matmul(&mlp.hidden)?)?.matmul(&mlp.output)?, &targets)?;
        optimizer.backward(&loss)?;
        optimizer.step(&mut mlp)?;
        last = loss.item()?;
    }
    assert!(last < 0.02, "the loss is {last}");
    Ok(())
}
