//! The effect of fine-tuning on `[CLS]` (section 5.6 of the course): draws the vectors of `[CLS]` before and after as
//! points in the plane, by principal components and by t-SNE, coloured by class.
//!
//! Without arguments, uses a few built-in reviews and the small model of this repository. To use your own data, pass
//! `--train FILE` with `--validation FILE` or `--split FRACTION`; to use a real model, `--model DIR_OR_NAME`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::bert::Rows;
use cloze::prelude::*;
use cloze::train::plot::{Grid, Page, Picture, ScatterPlot};
use cloze::train::projection::{Pca, Tsne};
use cloze_examples::{LabelledTexts, ModelArgument, PictureArgument, Result, Table, TextsArgument};
use serde::Serialize;

/// Draws the vectors of [CLS] before and after fine-tuning.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    texts: TextsArgument,
    #[command(flatten)]
    model: ModelArgument,
    /// Passes over the data [default: 1, or 20 for the built-in reviews]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Sentences in a batch [default: 32, or 8 for the built-in reviews]
    #[arg(long)]
    batch: Option<usize>,
    /// Peak learning rate [default: 5e-5, or 1e-3 for the small model]
    #[arg(long)]
    lr: Option<f64>,
    /// Maximum number of tokens; longer sentences are truncated
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(3..))]
    max_length: u16,
    /// Maximum number of rows to draw, each from the training and the validation data
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u16).range(4..))]
    points: u16,
    /// Perplexity of t-SNE, roughly the number of neighbours of a point [default: 30, or less if there are few points]
    #[arg(long)]
    perplexity: Option<f64>,
    /// Precision of matrix products: f32 or bf16
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
    /// Random seed
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Number of threads, which does not change the result [default: one per core]
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    out: PictureArgument,
    /// Also write the points to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The texts to draw.
#[derive(Serialize)]
struct Shown {
    texts: Vec<String>,
    /// Names of the groups: each class, held out or trained on.
    groups: Vec<String>,
    /// The group of each text.
    group: Vec<usize>,
    /// The class of each text.
    label: Vec<i64>,
}

/// The vectors of `[CLS]` before or after fine-tuning, projected to the plane.
#[derive(Serialize)]
struct Maps {
    when: &'static str,
    pca: Vec<Vec<f64>>,
    /// Shares of the variance explained by the two components.
    explained: Vec<f64>,
    tsne: Vec<[f64; 2]>,
    /// Share of the texts whose nearest neighbour, in all dimensions, has the same class.
    neighbours: f64,
}

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    cloze_examples::set_threads(arguments.threads)?;
    let path = arguments.out.file("visualize_cls")?;
    cloze_examples::check_json(arguments.json.as_deref())?;
    let texts = arguments.texts.read(arguments.seed)?;
    let shown = shown(&texts, arguments.points.into());
    println!("{} sentences to train on, {} to draw", texts.training.texts.len(), shown.texts.len());

    let place = arguments.model.place();
    let options = OpenOptions::new().labels(&texts.labels).fresh_head().seed(arguments.seed);
    let mut model = BertForSequenceClassification::open_with(&place, arguments.model.device().open()?, &options)?;
    let tokenizer = Tokenizer::open(&place)?;
    let max_length = usize::from(arguments.max_length).min(model.config().max_position_embeddings);

    let vectors = |model: &BertForSequenceClassification| cls(&model.bert, &tokenizer, &shown.texts, max_length);
    let before = maps("before", &vectors(&model)?, &shown, arguments)?;
    train(arguments, &mut model, &tokenizer, &texts, max_length)?;
    let after = maps("after", &vectors(&model)?, &shown, arguments)?;

    print_pooled(&model.bert, &tokenizer)?;
    println!("\nshare of [CLS] vectors whose nearest neighbour has the same class\n");
    let row = |maps: &Maps| [maps.when.to_string(), format!("{:.3}", maps.neighbours)];
    println!("{}", Table::new("<>").row(row(&before)).row(row(&after)));
    let picture = picture(&shown, [&before, &after]);
    match cloze_examples::is_svg(&path) {
        true => picture.save(&path)?,
        false => page(arguments, picture).save(&path)?,
    }
    println!("The maps are in {}", path.display());
    let report = serde_json::json!({"shown": shown, "maps": [before, after]});
    cloze_examples::write_json(arguments.json.as_deref(), &report)
}

/// Returns the first texts of the validation data, which show how well the classes are separated, and of the training
/// data.
fn shown(texts: &LabelledTexts, most: usize) -> Shown {
    let mut shown = Shown { texts: Vec::new(), groups: Vec::new(), group: Vec::new(), label: Vec::new() };
    for (rows, when) in [(&texts.validation, "held out"), (&texts.training, "trained on")] {
        let first = shown.groups.len();
        shown.groups.extend(texts.labels.iter().map(|label| format!("{label}, {when}")));
        for (text, &label) in rows.texts.iter().zip(&rows.labels).take(most) {
            shown.texts.push(text.clone());
            shown.group.push(first + usize::try_from(label).unwrap_or(0));
            shown.label.push(label);
        }
    }
    shown
}

fn train(
    arguments: &Arguments,
    model: &mut BertForSequenceClassification,
    tokenizer: &Tokenizer,
    texts: &LabelledTexts,
    max_length: usize,
) -> Result {
    let (is_small, is_built_in) = (arguments.model.is_tiny(), arguments.texts.is_built_in());
    let labels = texts.training.labels.clone();
    let (data, report) = LabelledData::of_texts(&texts.training.texts, labels, tokenizer, max_length)?;
    println!("{report}");
    let report = Trainer::new(model)
        .optimizer(AdamW::new(arguments.lr.unwrap_or(if is_small { 1e-3 } else { 5e-5 })))
        .batch_size(arguments.batch.unwrap_or(if is_built_in { 8 } else { 32 }))
        .epochs(arguments.epochs.unwrap_or(if is_built_in { 20 } else { 1 }))
        .precision(arguments.precision)
        .seed(arguments.seed)
        .run(&data.seed(arguments.seed))?;
    println!("{} steps, mean loss of the last five: {:.3}", report.losses.len(), report.mean_of_last(5));
    Ok(())
}

/// Returns the vector of `[CLS]` after the last layer for each text.
fn cls(model: &BertModel, tokenizer: &Tokenizer, texts: &[String], max_length: usize) -> Result<Vec<Vec<f32>>> {
    let options = EncodeOptions::new().max_length(max_length).truncation(Truncation::LongestFirst);
    let encode = |text: &String| tokenizer.encode_with(text, None, &options);
    let encodings = texts.iter().map(encode).collect::<cloze::bert::Result<Vec<_>>>()?;
    let cut: usize = encodings.iter().map(|encoding| encoding.truncated).sum();
    if cut > 0 {
        eprintln!("{cut} tokens were cut from texts of more than {max_length} tokens");
    }
    let mut vectors = Vec::with_capacity(texts.len());
    for encodings in encodings.chunks(32) {
        let batch = Batch::from_encodings(encodings)?;
        let rows = Rows::cls(batch.sequences());
        let states = no_grad(|| model.forward_rows(&batch, &rows, Mode::Eval))?; // [B, H]
        vectors.extend(states.to_vec::<f32>()?.chunks(states.shape()[1]).map(<[f32]>::to_vec));
    }
    Ok(vectors)
}

/// Prints the vector of `[CLS]` of a sentence behind the pooler, which the classifier reads: tanh(W h + b).
fn print_pooled(model: &BertModel, tokenizer: &Tokenizer) -> Result {
    let sentence = "a great movie.";
    let batch = Batch::from_encodings(&[tokenizer.encode(sentence)?])?;
    let pooled = no_grad(|| model.pooled(&batch, Mode::Eval))?; // [1, H]
    let first: Vec<String> = pooled.to_vec::<f32>()?.iter().take(6).map(|x| format!("{x:.4}")).collect();
    println!("\npooled [CLS] of {sentence:?} after fine-tuning: shape {:?}\n{}, ...", pooled.shape(), first.join(", "));
    Ok(())
}

fn maps(when: &'static str, vectors: &[Vec<f32>], shown: &Shown, arguments: &Arguments) -> Result<Maps> {
    let pca = Pca::fit(vectors, 2)?;
    let perplexity = arguments.perplexity.unwrap_or((vectors.len() as f64 / 5.0).clamp(2.0, 30.0));
    Ok(Maps {
        when,
        pca: pca.transform(vectors)?,
        explained: pca.explained_variance_ratio(),
        tsne: Tsne::new().perplexity(perplexity).fit(vectors)?.points,
        neighbours: agreeing_neighbours(vectors, &shown.label),
    })
}

/// Returns the share of vectors whose nearest neighbour has the same label.
fn agreeing_neighbours(vectors: &[Vec<f32>], labels: &[i64]) -> f64 {
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
    let agrees = |&index: &usize| {
        let others = (0..vectors.len()).filter(|&other| other != index);
        let far = |&other: &usize| distance(&vectors[index], &vectors[other]);
        let nearest = others.min_by(|a, b| far(a).total_cmp(&far(b)));
        nearest.is_some_and(|nearest| labels[nearest] == labels[index])
    };
    (0..vectors.len()).filter(agrees).count() as f64 / vectors.len() as f64
}

/// Draws a grid: principal components in the first row and t-SNE in the second, before fine-tuning on the left and
/// after on the right.
fn picture(shown: &Shown, both: [&Maps; 2]) -> Picture {
    let classes = shown.groups.len() / 2;
    let plot = |title: String, points: &dyn Fn(usize) -> [f64; 2]| {
        let plot = shown.groups.iter().enumerate().fold(ScatterPlot::new(title), |plot, (group, name)| {
            let of_group = (0..shown.texts.len()).filter(|&index| shown.group[index] == group);
            let points = of_group.map(|index| (points(index), shown.texts[index].as_str()));
            if group < classes { plot.class(name, points) } else { plot.hollow_class(name, group - classes, points) }
        });
        plot.side(360.0).without_legend()
    };
    let grid = Grid::new("[CLS] before and after fine-tuning", 2).legend(&plot(String::new(), &|_| [0.0; 2]));
    let grid = both.into_iter().fold(grid, |grid, maps| {
        let title = format!("Principal components, {} fine-tuning", maps.when);
        let axis =
            |number: usize| format!("component {} ({:.0} % of variance)", number + 1, 100.0 * maps.explained[number]);
        let plot = plot(title, &|index| [maps.pca[index][0], maps.pca[index][1]]);
        grid.picture(plot.axes(axis(0), axis(1)).draw())
    });
    let grid = both.into_iter().fold(grid, |grid, maps| {
        let plot = plot(format!("t-SNE, {} fine-tuning", maps.when), &|index| maps.tsne[index]);
        grid.picture(plot.axes("t-SNE 1", "t-SNE 2").draw())
    });
    grid.draw()
}

fn page(arguments: &Arguments, picture: Picture) -> Page {
    let explanation = "Each point is the vector of [CLS] of one text, after the last layer. Principal components \
                       preserve distances as well as two dimensions can. t-SNE keeps neighbours together, but its \
                       distances mean little. Outlined points are texts of the training data. Hover over a point to \
                       read its text.";
    Page::new(format!("[CLS] of {} before and after fine-tuning", arguments.model.name()))
        .note(explanation)
        .pictures("Maps", [picture])
}
